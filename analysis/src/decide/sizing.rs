//! How many blocks the wanted precision takes: Stein's two stages.
//!
//! The first stage's spread alone decides the number of blocks, never a ratio that somebody saw: R = max(10,
//! ⌈(t(R₀−1)·s/ln(1+x))²⌉) for a relative half-width x, with s the largest spread over all pairs that a verdict may rest on,
//! the control's and those with today's cheaper arms included. The interval
//! then keeps the first stage's spread and degrees of freedom (Stein 1945; [`crate::compare::Spread::sized_by`]).

use super::primary::Primary;
use super::verdict::BLOCKS_MIN;
use crate::compare::{Spread, t_critical};
use crate::decision::Sizing;
use regauge_traces::study::Manifest;

/// Sizes a study with [`regauge_traces::study::Design::until`] by the spread of these pairs of arms; `Ok(None)` where
/// nothing was asked for.
///
/// # Errors
/// One sentence: why the first stage does not tell.
pub fn size(primary: &Primary<'_>, pairs: &[(usize, usize)]) -> Result<Option<Sizing>, String> {
    let Some(wanted) = primary.design.until else { return Ok(None) };
    let first = primary.first_stage_blocks();
    let asked = primary.first_stage_asked().max(BLOCKS_MIN);
    let label = primary.label();
    let cannot = |why: String| Err(format!("The first stage does not tell how many blocks it takes: {why}."));
    if (first as u64) < asked {
        return cannot(format!("{first} of its {asked} complete blocks are there"));
    }
    let mut largest: Option<(f64, (usize, usize))> = None;
    for &(arm, against) in pairs {
        let (name, other) = (primary.name(arm), primary.name(against));
        if primary.refusal(arm, against).is_some() {
            let unknown = "the spread of a refused percentile is not known";
            return cannot(format!("{label} is refused for {name} or {other}, and {unknown}"));
        }
        let contrast = primary.first_stage_contrast(arm, against);
        let Some(sd) = contrast.and_then(|contrast| per_block(&contrast.log_ratio)) else {
            return cannot(format!("it has no interval of {label} for {name} against {other}"));
        };
        if largest.is_none_or(|(most, _)| sd > most) {
            largest = Some((sd, (arm, against)));
        }
    }
    let Some((sd, (arm, against))) = largest else {
        return Err("There is no arm to compare with the base, and nothing to size.".to_owned());
    };
    let blocks = blocks_for(sd, first, (1.0 + wanted).ln());
    Ok(Some(Sizing {
        first_stage: first as u64,
        sd,
        arm: primary.name(arm).to_owned(),
        against: primary.name(against).to_owned(),
        wanted,
        blocks,
        beyond_max: blocks > u64::from(primary.design.blocks_max),
    }))
}

/// s = se·√R: the spread of one block's worth.
pub fn per_block(spread: &Spread) -> Option<f64> {
    spread.se.map(|se| se * ((spread.df + 1) as f64).sqrt())
}

/// Blocks for an interval of this half-width (log scale) when `seen` blocks showed this spread per block.
pub fn blocks_for(sd: f64, seen: usize, half_width: f64) -> u64 {
    let t = seen.checked_sub(1).and_then(t_critical).unwrap_or(f64::INFINITY);
    // The cast saturates, so that infinity means out of reach.
    ((t * sd / half_width).powi(2).ceil() as u64).max(BLOCKS_MIN)
}

/// Blocks of the first stage, in a study whose later stage was sized by it.
pub fn first_stage(manifest: &Manifest) -> Option<usize> {
    let sized = manifest.stages.iter().position(|stage| stage.sized)?;
    let first = manifest.stages.get(sized.checked_sub(1)?)?;
    usize::try_from(first.blocks).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_the_facts_page() {
        // s = .18: 17/7/5 blocks for ±10/20/30 %, s = .3: 41/13/8, s = .5: 109/32/17 by the iterated formula with R−1
        // degrees of freedom; Stein's with t(9) asks for up to (2.262/1.96)² = 4/3 of that.
        for (sd, x, least) in [(0.18, 0.1, 17), (0.3, 0.1, 41), (0.3, 0.2, 13), (0.5, 0.1, 109), (0.5, 0.2, 32)] {
            let blocks = blocks_for(sd, 10, (1.0_f64 + x).ln());
            assert!(blocks >= least && blocks <= least * 4 / 3 + 3, "{sd} {x}: {blocks}");
        }
        assert_eq!(blocks_for(0.01, 10, 0.2), 10);
        // t(9) = 2.262157; (2.262157·0.3/ln 1.1)² = 50.7.
        assert_eq!(blocks_for(0.3, 10, 1.1_f64.ln()), 51);
        assert_eq!(blocks_for(0.3, 10, 0.0), u64::MAX);
    }
}
