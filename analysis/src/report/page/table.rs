//! Tables as the template prints them: every number already has its unit.

use serde::Serialize;

/// A cell of a table: what it says, and smaller lines under it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// First line.
    pub text: String,
    /// Smaller, under it.
    pub note: String,
    /// Smaller still less important, under that.
    pub more: String,
    /// Style class.
    pub class: &'static str,
    /// Inline SVG that stands for the text; empty in most cells.
    pub picture: String,
}

impl Cell {
    /// A cell of plain text.
    pub fn of(text: impl Into<String>) -> Self {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// A cell of text with a style class.
    pub fn classed(text: impl Into<String>, class: &'static str) -> Self {
        Cell { text: text.into(), class, ..Cell::default() }
    }

    /// The cell with a second line.
    pub fn note(self, note: impl Into<String>) -> Self {
        Cell { note: note.into(), ..self }
    }
}

/// A row with its heading.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Heading.
    pub head: String,
    /// Inline SVG of the arm's line and mark; empty where the row is no arm.
    pub key: String,
    /// Style class.
    pub class: &'static str,
    /// Cells, one per column.
    pub cells: Vec<Cell>,
}

/// A table.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// What it shows, for those who hear the page.
    pub caption: &'static str,
    /// Heading of the rows' headings.
    pub corner: &'static str,
    /// Headings.
    pub columns: Vec<String>,
    /// Rows.
    pub rows: Vec<Row>,
}

impl Table {
    /// A table with these headings and rows.
    pub fn new(caption: &'static str, corner: &'static str, columns: &[&str], rows: Vec<Row>) -> Self {
        Table { caption, corner, columns: columns.iter().map(|&column| column.to_owned()).collect(), rows }
    }
}
