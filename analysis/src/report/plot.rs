//! A small SVG writer: a frame with axes, and lines, bands, marks and words in it.
//!
//! It writes text, not pictures: colours and dashes are classes of the page's style sheet, so that one SVG serves light,
//! dark and print. Sizes are units of the view box, which the browser scales to the page's width.

use super::axis::Axis;
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 92.0;
const PANEL_WIDTH: f64 = 400.0;
const PANEL_LEFT: f64 = 54.0;
const RIGHT: f64 = 38.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 52.0;

/// Shapes that tell arms apart without colour, and colours (with their dashes) of the style sheet.
const MARKS: usize = 4;
const COLOURS: usize = 8;

/// A plot being drawn.
pub struct Plot {
    x: Axis,
    y: Axis,
    width: f64,
    left: f64,
    height: f64,
    class: &'static str,
    under: String,
    over: String,
}

impl Plot {
    /// An empty frame of this height.
    pub fn new(x: Axis, y: Axis, height: f64) -> Self {
        let (under, over) = (String::new(), String::new());
        Plot { x, y, width: WIDTH, left: LEFT, height, class: "plot", under, over }
    }

    /// A frame of half the width, for panels beside each other.
    pub fn panel(x: Axis, y: Axis, height: f64) -> Self {
        Plot { width: PANEL_WIDTH, left: PANEL_LEFT, class: "plot panel", ..Plot::new(x, y, height) }
    }

    /// Horizontal place of a value.
    pub fn px(&self, x: f64) -> f64 {
        self.left + self.x.place(x) * (self.width - self.left - RIGHT)
    }

    /// Vertical place of a value.
    pub fn py(&self, y: f64) -> f64 {
        self.height - BOTTOM - self.y.place(y) * (self.height - TOP - BOTTOM)
    }

    /// A line through points; neighbours that fall on the same pixel are drawn once. Fewer than two points draw nothing.
    pub fn line(&mut self, points: &[(f64, f64)], class: &str) {
        let mut places: Vec<(f64, f64)> = Vec::new();
        for &(x, y) in points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let place = (self.px(x), self.py(y));
            let is_new = places.last().is_none_or(|last| (last.0 - place.0).hypot(last.1 - place.1) > 0.3);
            if is_new {
                places.push(place);
            }
        }
        if places.len() < 2 {
            return;
        }
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.over, r#"<polyline class="{class}" points="{}"/>"#, path.join(" "));
    }

    /// A shaded zone between two places of the horizontal axis, with a word at its top.
    pub fn zone_x(&mut self, from: f64, to: f64, class: &str, word: &str) {
        let (left, right) = (self.px(from), self.px(to));
        self.zone(left, TOP, right - left, self.height - TOP - BOTTOM, class, word);
    }

    /// A shaded zone between two places of the vertical axis, with a word in it.
    pub fn zone_y(&mut self, from: f64, to: f64, class: &str, word: &str) {
        let (a, b) = (self.py(from), self.py(to));
        self.zone(self.left, a.min(b), self.width - self.left - RIGHT, (a - b).abs(), class, word);
    }

    fn zone(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str, word: &str) {
        if width < 1.0 || height < 1.0 {
            return;
        }
        let _ = write!(
            self.under,
            r#"<rect class="zone {class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        );
        // A word needs about seven units a letter; one that does not fit is left to the caption.
        if width > 7.0 * word.chars().count() as f64 && height > 18.0 {
            let _ = write!(
                self.over,
                r#"<text class="word" x="{:.1}" y="{:.1}">{}</text>"#,
                x + 6.0,
                y + 15.0,
                escape(word)
            );
        }
    }

    /// A band between two lines, as wide as both are known: an interval around a curve.
    pub fn band(&mut self, points: &[(f64, f64, f64)], class: &str) {
        let known: Vec<_> =
            points.iter().filter(|(x, low, high)| x.is_finite() && *low > 0.0 && high.is_finite()).collect();
        if known.len() < 2 {
            return;
        }
        let place = |x: f64, y: f64| format!("{:.1} {:.1}", self.px(x), self.py(y));
        let there = known.iter().map(|point| place(point.0, point.2));
        let back = known.iter().rev().map(|point| place(point.0, point.1));
        let path: Vec<String> = there.chain(back).collect();
        let _ = write!(self.under, r#"<path class="{class}" d="M{}z"/>"#, path.join("L"));
    }

    /// A vertical reference line.
    pub fn rule_x(&mut self, x: f64, class: &str) {
        let x = self.px(x);
        let _ = write!(self.over, r#"<path class="{class}" d="M{x:.1} {TOP}V{:.1}"/>"#, self.height - BOTTOM);
    }

    /// Cells of equal size as one path: (left, top, width, height), in the frame's units.
    pub fn cells(&mut self, cells: &[(f64, f64, f64, f64)], class: &str) {
        if cells.is_empty() {
            return;
        }
        let _ = write!(self.under, r#"<path class="{class}" d=""#);
        for (x, y, width, height) in cells {
            let _ = write!(self.under, "M{x:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z");
        }
        self.under += r#""/>"#;
    }

    /// Short strokes at the frame's upper edge, one per moment.
    pub fn strokes(&mut self, moments: &[f64], class: &str) {
        let place = |x: &f64| format!("M{:.1} {:.1}v-7", self.px(*x), TOP);
        let mut path: Vec<String> = moments.iter().map(place).collect();
        path.dedup();
        if !path.is_empty() {
            let _ = write!(self.over, r#"<path class="{class}" d="{}"/>"#, path.concat());
        }
    }

    /// A horizontal reference line.
    pub fn rule_y(&mut self, y: f64, class: &str) {
        let y = self.py(y);
        let _ = write!(self.over, r#"<path class="{class}" d="M{:.1} {y:.1}H{:.1}"/>"#, self.left, self.width - RIGHT);
    }

    /// A mark with a vertical bar, `shift` units beside its place. A bar that leaves the frame ends in an arrow's stead
    /// at the frame.
    pub fn whisker(&mut self, at: (f64, f64), shift: f64, ends: Option<(f64, f64)>, series: usize, title: &str) {
        let (x, y) = (self.px(at.0) + shift, self.py(at.1));
        let _ = write!(self.over, r#"<g class="{}"><title>{}</title>"#, class("mark", series), escape(title));
        if let Some((low, high)) = ends {
            let (top, bottom) = (self.py(high), self.py(low));
            let _ = write!(self.over, r#"<path d="M{x:.1} {top:.1}V{bottom:.1}"/>"#);
            for (end, value, inside) in [(top, high, high <= self.y.high), (bottom, low, low >= self.y.low)] {
                if inside && value.is_finite() {
                    let _ = write!(self.over, r#"<path d="M{:.1} {end:.1}h8"/>"#, x - 4.0);
                }
            }
        }
        let _ = write!(self.over, "{}</g>", mark(series, x, y, 5.0));
    }

    /// The finished SVG element. `about` says in words what it shows, for those who do not see it.
    pub fn finish(self, about: &str) -> String {
        let (left, right, bottom) = (self.left, self.width - RIGHT, self.height - BOTTOM);
        let mut svg = format!(
            r#"<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">"#,
            self.class,
            self.width,
            self.height,
            escape(about)
        );
        svg += &self.under;
        for tick in &self.x.ticks {
            let x = self.px(tick.at);
            let kind = if tick.label.is_empty() { "faint" } else { "grid" };
            let _ = write!(svg, r#"<path class="{kind}" d="M{x:.1} {TOP}V{bottom:.1}"/>"#);
            if !tick.label.is_empty() {
                let class = if tick.minor { "tick minor" } else { "tick" };
                let _ = write!(
                    svg,
                    r#"<text class="{class} mid" x="{x:.1}" y="{:.1}">{}</text>"#,
                    bottom + 20.0,
                    escape(&tick.label)
                );
            }
        }
        for tick in &self.y.ticks {
            let y = self.py(tick.at);
            let kind = if tick.label.is_empty() { "faint" } else { "grid" };
            let _ = write!(svg, r#"<path class="{kind}" d="M{left} {y:.1}H{right:.1}"/>"#);
            if !tick.label.is_empty() {
                let class = if tick.minor { "tick minor" } else { "tick" };
                let _ = write!(
                    svg,
                    r#"<text class="{class} end" x="{:.1}" y="{:.1}">{}</text>"#,
                    self.left - 8.0,
                    y + 4.5,
                    escape(&tick.label)
                );
            }
        }
        let _ = write!(svg, r#"<path class="frame" d="M{left} {TOP}V{bottom:.1}H{right:.1}"/>"#);
        svg += &self.over;
        if !self.x.label.is_empty() {
            let middle = (self.left + right) / 2.0;
            let _ = write!(
                svg,
                r#"<text class="axis mid" x="{middle:.1}" y="{:.1}">{}</text>"#,
                self.height - 8.0,
                escape(&self.x.label)
            );
        }
        svg + "</svg>"
    }
}

/// The classes of a series' element: what it is, and its colour. The ninth series begins again with the first colour.
pub fn class(what: &str, series: usize) -> String {
    format!("{what} s{}", series % COLOURS)
}

/// The mark of a series: circle, square, triangle or diamond.
pub(super) fn mark(series: usize, x: f64, y: f64, r: f64) -> String {
    match series % MARKS {
        0 => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{r}"/>"#),
        1 => format!(r#"<rect x="{:.1}" y="{:.1}" width="{}" height="{}"/>"#, x - r, y - r, 2.0 * r, 2.0 * r),
        2 => format!(r#"<path d="M{x:.1} {:.1}l{r} {}h{}z"/>"#, y - r, 2.0 * r, -2.0 * r),
        _ => format!(r#"<path d="M{x:.1} {:.1}l{r} {r}l{} {r}l{} {}z"/>"#, y - r, -r, -r, -r),
    }
}

/// A short piece of a series' line with its mark, for legends and tables.
pub fn key(series: usize) -> String {
    format!(
        r#"<svg class="key" viewBox="0 0 36 12" aria-hidden="true"><path class="{}" d="M0 6H36"/><g class="{}">{}</g></svg>"#,
        class("pooled", series),
        class("mark", series),
        mark(series, 18.0, 6.0, 3.6)
    )
}

/// Text as XML wants it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_to_the_frame_and_skips_what_cannot_be_seen() {
        let mut plot = Plot::new(Axis::of_nines(3.0, "x"), Axis::of_times([1e3, 1e6], "y"), 300.0);
        plot.line(&[(0.0, 1e3), (0.0, 1e3), (f64::NAN, 1e4), (3.0, 1e12)], "pooled s0");
        plot.line(&[(0.0, 1e3)], "alone");
        let svg = plot.finish("a <test>");
        assert!(svg.contains(r#"class="pooled s0" points="92.0,"#) && svg.contains(" 682.0,12.0\""), "{svg}");
        assert!(!svg.contains("alone") && !svg.contains("NaN"));
        assert!(svg.contains("a &lt;test&gt;"));
    }
}
