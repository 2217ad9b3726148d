//! The report: one HTML file that opens offline, on a phone, in the dark and on paper.
//!
//! Everything is in the file: style, a few lines of script, figures as inline SVG, the analysis as JSON. Nothing is
//! requested from anywhere, and a content security policy in the page holds it to that. The first page is the decision
//! record ([`page`]); under it stands the evidence ([`figures`] and tables).

mod axis;
mod bands;
mod figures;
mod page;
mod plot;

use crate::analysis::Analysis;
use crate::error::AnalysisError;
use crate::evidence::ArmEvidence;
use crate::load::Study;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

const TEMPLATES: [(&str, &str); 4] = [
    ("report", include_str!("report.html.jinja")),
    ("record", include_str!("record.html.jinja")),
    ("evidence", include_str!("evidence.html.jinja")),
    ("table", include_str!("table.html.jinja")),
];
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Renders the report of a study.
///
/// # Errors
/// A file of a valid run that cannot be read again, or a defect of the template.
pub fn render(study: &Study, evidence: &[ArmEvidence], analysis: &Analysis) -> Result<String, AnalysisError> {
    let failed = |error: minijinja::Error| AnalysisError::Output { what: "report.html", reason: format!("{error:#}") };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).map_err(failed)?;
    }
    let figures = figures::draw(study, evidence, analysis)?;
    let json = serde_json::to_string(analysis)
        .map_err(|error| AnalysisError::Output { what: "report.html", reason: error.to_string() })?;
    let page = page::Page::of(study, analysis);
    let context = minijinja::context! {
        page => Value::from(Serde(&page)),
        figures => Value::from(Serde(&figures)),
        style => Value::from_safe_string(STYLE.to_owned()),
        script => Value::from_safe_string(SCRIPT.to_owned()),
        // `</script` must not occur inside a script element.
        data => Value::from_safe_string(json.replace("</", "<\\/")),
    };
    environment.get_template("report").and_then(|template| template.render(context)).map_err(failed)
}
