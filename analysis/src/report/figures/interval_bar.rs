//! Intervals of a ratio as bars in a table's cells, all on one axis: the region of equivalence shaded, the bar and 1 as
//! lines. A bar that leaves the axis ends at its edge without a cap.

use crate::decision::Estimate;
use crate::report::axis::Axis;
use crate::report::plot::{class, mark};
use crate::units::ratio;
use regauge_traces::study::Design;
use std::fmt::Write;

const WIDTH: f64 = 210.0;
const HEIGHT: f64 = 30.0;

/// What all bars of a table share.
pub struct Bars {
    axis: Axis,
    equivalent: (f64, f64),
    worth: f64,
}

impl Bars {
    /// An axis that shows all estimates, the bar and the region of equivalence.
    pub fn of(design: &Design, estimates: impl Iterator<Item = Estimate>) -> Self {
        let ends = estimates.flat_map(|e| [Some(e.value), e.low, e.high]).flatten();
        let shown = ends.chain([design.worth_ratio, design.equivalent_low, design.equivalent_high]);
        let axis = Axis::of_ratios(shown, "");
        Bars { axis, equivalent: (design.equivalent_low, design.equivalent_high), worth: design.worth_ratio }
    }

    fn px(&self, value: f64) -> f64 {
        6.0 + self.axis.place(value) * (WIDTH - 12.0)
    }

    fn open(&self, about: &str, height: f64) -> String {
        format!(
            r#"<svg class="interval" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{about}">"#
        )
    }
}

/// One interval; an estimate that is missing draws the lines alone.
pub fn bar(bars: &Bars, estimate: Option<Estimate>, series: usize) -> String {
    let about = match estimate {
        Some(e) => format!("ratio {}", super::ratio_words(e)),
        None => "no ratio".to_owned(),
    };
    let mut svg = bars.open(&about, HEIGHT);
    let (low, high) = (bars.px(bars.equivalent.0), bars.px(bars.equivalent.1));
    let _ = write!(
        svg,
        r#"<rect class="zone equivalent" x="{low:.1}" y="0" width="{:.1}" height="{HEIGHT}"/>"#,
        high - low
    );
    let (one, worth, middle) = (bars.px(1.0), bars.px(bars.worth), HEIGHT / 2.0);
    let _ =
        write!(svg, r#"<path class="one" d="M{one:.1} 0V{HEIGHT}"/><path class="worth" d="M{worth:.1} 0V{HEIGHT}"/>"#);
    if let Some(e) = estimate {
        let _ = write!(svg, r#"<g class="{}">"#, class("mark", series));
        if let Some((low, high)) = e.low.zip(e.high) {
            let (left, right) = (bars.px(low), bars.px(high));
            let _ = write!(svg, r#"<path d="M{left:.1} {middle}H{right:.1}"/>"#);
            for (x, inside) in [(left, low >= bars.axis.low), (right, high <= bars.axis.high)] {
                if inside {
                    let _ = write!(svg, r#"<path d="M{x:.1} {:.1}v10"/>"#, middle - 5.0);
                }
            }
        }
        svg += &mark(series, bars.px(e.value), middle, 4.5);
        svg += "</g>";
    }
    svg + "</svg>"
}

/// The axis under the bars.
pub fn axis(bars: &Bars) -> String {
    let mut svg = bars.open("axis of the ratios", HEIGHT);
    // The bar's name stands left of its line, as far as there is room; ticks that would run into it or into each other
    // are left out.
    let name = format!("bar {}", ratio(bars.worth));
    let length = 6.6 * name.chars().count() as f64;
    let right = (bars.px(bars.worth) + 4.0).max(length);
    let _ = write!(svg, r#"<text class="worth-word end" x="{right:.1}" y="14">{name}</text>"#);
    let mut placed = vec![(right - length, right + 2.0)];
    let ticks = bars.axis.ticks.iter().filter(|tick| !tick.label.is_empty());
    let named = ticks.map(|tick| (tick.at, tick.label.trim_end_matches('×').to_owned()));
    for (at, name) in [(1.0, "1".to_owned())].into_iter().chain(named) {
        let half = 3.6 * name.chars().count() as f64 + 3.0;
        let x = bars.px(at).clamp(half, WIDTH - half);
        if placed.iter().any(|(from, to)| x - half < *to && x + half > *from) {
            continue;
        }
        placed.push((x - half, x + half));
        let _ = write!(svg, r#"<text class="tick mid" x="{x:.1}" y="14">{name}</text>"#);
    }
    svg + "</svg>"
}
