//! A clock that is cheap enough to be read at every step of a broker, and its way back to CLOCK_MONOTONIC.
//!
//! [`now`] reads the time stamp counter where it can serve as a clock: an x86_64 processor that counts at a constant
//! rate in all its states (CPUID 8000_0007h, EDX bit 8: Intel SDM vol. 3, 19.17.1), and a kernel that has found the
//! counters of all CPUs to agree (it lists `tsc` among its clock sources only then). Elsewhere it is CLOCK_MONOTONIC
//! itself, in ns. Whoever stores times turns ticks into CLOCK_MONOTONIC by a [`Calibration`], so that they can be
//! compared with those of other processes.
//!
//! A calibration is the broken line through its [`Anchor`]s. Between two anchors nothing is extrapolated, so neither the
//! counter's true rate nor the kernel's steering of its clock (NTP) builds up an error; and a tick stands for the same
//! moment whenever it is converted, as long as it lies before the last anchor.
//!
//! Left out: ordering. The counter may be read a few ns before an earlier instruction has ended; a fence would cost more
//! than it tells.

use crate::meta::monotonic_ns;
use std::sync::LazyLock;

/// Readings of an anchor, of which the tightest counts: an interrupt between two readings spoils only some.
const READINGS: usize = 8;

/// Anchors kept. Beyond it the older half is thinned out, so that a recording of weeks stays small.
const ANCHORS_MAX: usize = 8192;

static TSC: LazyLock<bool> = LazyLock::new(tsc_is_a_clock);

/// Whether ticks are those of the time stamp counter; otherwise they are ns of CLOCK_MONOTONIC.
#[inline]
pub fn is_tsc() -> bool {
    *TSC
}

/// The name of what [`now`] reads, for a recording's metadata.
pub fn clock() -> &'static str {
    if is_tsc() { "tsc" } else { "clock_gettime" }
}

/// The time now, in ticks. They ascend on one thread, and from one thread to another as far as CPUs agree, which the
/// kernel has checked.
#[inline]
pub fn now() -> u64 {
    if is_tsc() { counter() } else { monotonic_ns() }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn counter() -> u64 {
    // SAFETY: the instruction only reads a register; every x86_64 processor that Rust's target allows has it, and it is
    // reached only after `tsc_is_a_clock`.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn counter() -> u64 {
    monotonic_ns()
}

#[cfg(target_arch = "x86_64")]
fn tsc_is_a_clock() -> bool {
    use core::arch::x86_64::__cpuid;
    const SOURCES: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    // Newer compilers take the instruction for safe, older ones do not.
    #[allow(unused_unsafe)]
    // SAFETY: every x86_64 processor has CPUID; a leaf is asked for only if the processor says that it has it.
    let invariant = unsafe { __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0 };
    let trusted = std::fs::read_to_string(SOURCES).is_ok_and(|list| list.split_whitespace().any(|name| name == "tsc"));
    invariant && trusted
}

#[cfg(not(target_arch = "x86_64"))]
fn tsc_is_a_clock() -> bool {
    false
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// What [`now`] said.
    pub ticks: u64,
    /// CLOCK_MONOTONIC, ns.
    pub monotonic_ns: u64,
    /// How far the two readings may lie apart, ns.
    pub error_ns: u64,
}

impl Anchor {
    /// Reads both clocks: the ticks between two readings of CLOCK_MONOTONIC, of which the middle is taken.
    pub fn take() -> Anchor {
        if !is_tsc() {
            let ns = monotonic_ns();
            return Anchor { ticks: ns, monotonic_ns: ns, error_ns: 0 };
        }
        let read = || {
            let before = monotonic_ns();
            let ticks = counter();
            let after = monotonic_ns();
            let apart = after.saturating_sub(before);
            Anchor { ticks, monotonic_ns: before + apart / 2, error_ns: apart.div_ceil(2) }
        };
        let first = read();
        (1..READINGS).map(|_| read()).fold(first, |best, next| if next.error_ns < best.error_ns { next } else { best })
    }
}

/// Turns ticks into CLOCK_MONOTONIC by anchors taken at two moments or more.
///
/// Two anchors serve where ticks are converted after the fact and the clock is not steered meanwhile; an anchor every
/// second or so follows the steering too.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// Ascending in both clocks.
    anchors: Vec<Anchor>,
    reading_error_ns: u64,
    bend_ns: u64,
}

impl Calibration {
    /// A calibration by two anchors. Ticks outside of them are converted at the rate between them.
    pub fn between(first: Anchor, last: Anchor) -> Calibration {
        let mut calibration = Calibration { anchors: vec![first], reading_error_ns: first.error_ns, bend_ns: 0 };
        calibration.add(last);
        calibration
    }

    /// Adds an anchor that was taken after all others. What lies before the last one is converted as before.
    pub fn add(&mut self, anchor: Anchor) {
        let Some(last) = self.anchors.last() else { return };
        if anchor.ticks <= last.ticks || anchor.monotonic_ns <= last.monotonic_ns {
            return;
        }
        if let [.., first, middle] = self.anchors.as_slice() {
            let straight = line(*first, anchor, middle.ticks);
            self.bend_ns = self.bend_ns.max(straight.abs_diff(middle.monotonic_ns));
        }
        self.reading_error_ns = self.reading_error_ns.max(anchor.error_ns);
        self.anchors.push(anchor);
        if self.anchors.len() > ANCHORS_MAX {
            self.thin_out();
        }
    }

    /// Drops every second anchor of the older half. What they said of the bend is kept.
    fn thin_out(&mut self) {
        let older = self.anchors.get(..=ANCHORS_MAX / 2).unwrap_or_default();
        for group in older.chunks(2).zip(older.chunks(2).skip(1)) {
            if let ([first, middle], [last, ..]) = group {
                self.bend_ns = self.bend_ns.max(line(*first, *last, middle.ticks).abs_diff(middle.monotonic_ns));
            }
        }
        let mut at = 0;
        self.anchors.retain(|_| {
            at += 1;
            at > ANCHORS_MAX / 2 || at % 2 == 1
        });
    }

    /// What `ticks` are in CLOCK_MONOTONIC, ns.
    pub fn monotonic_ns(&self, ticks: u64) -> u64 {
        if !is_tsc() {
            return ticks;
        }
        self.along_the_line(ticks)
    }

    fn along_the_line(&self, ticks: u64) -> u64 {
        match self.anchors.as_slice() {
            [] => ticks,
            [only] => only.monotonic_ns,
            // Nearly all ticks are recent.
            [.., first, last] if ticks >= first.ticks => line(*first, *last, ticks),
            anchors => {
                let after = anchors.partition_point(|anchor| anchor.ticks <= ticks).max(1);
                match anchors.get(after - 1..=after) {
                    Some([first, last]) => line(*first, *last, ticks),
                    _ => ticks,
                }
            }
        }
    }

    /// How many ns a number of ticks took at the time of `at`. Its error is that of the rate, some parts in a million.
    pub fn ns_of(&self, ticks: u64, at: u64) -> u64 {
        self.monotonic_ns(at.saturating_add(ticks)).saturating_sub(self.monotonic_ns(at))
    }

    /// How far a converted time may be from CLOCK_MONOTONIC, ns: the largest error of reading both clocks, and the
    /// furthest that an anchor lay from the straight line between its neighbours. Two anchors show no such bend: then a
    /// change of rate between them is not in the bound.
    pub fn error_ns(&self) -> u64 {
        self.reading_error_ns.saturating_add(self.bend_ns)
    }
}

/// The straight line through two anchors.
fn line(first: Anchor, last: Anchor, ticks: u64) -> u64 {
    let span = i128::from(last.ticks.abs_diff(first.ticks)).max(1);
    let rise = i128::from(last.monotonic_ns.abs_diff(first.monotonic_ns));
    let along = (i128::from(ticks) - i128::from(first.ticks)).saturating_mul(rise).div_euclid(span);
    u64::try_from(i128::from(first.monotonic_ns).saturating_add(along).max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    /// Threads on all CPUs take a time between two readings of the system's clock; the converted time must lie between
    /// these, however busy the machine is.
    #[test]
    fn converted_ticks_agree_with_the_system_clock() {
        let first = Anchor::take();
        let sample = || {
            (0..200)
                .map(|round| {
                    if round % 10 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let before = monotonic_ns();
                    let ticks = now();
                    (before, ticks, monotonic_ns())
                })
                .collect::<Vec<_>>()
        };
        let samples: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(sample)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let calibration = Calibration::between(first, Anchor::take());
        let error = calibration.error_ns();
        for (before, ticks, after) in samples {
            let converted = calibration.monotonic_ns(ticks);
            let range = before.saturating_sub(error)..=after + error;
            assert!(range.contains(&converted), "{converted} is not in {range:?}, clock {}", clock());
        }
        // An anchor's error is the time of a few clock readings, unless every one of eight was interrupted.
        assert!(error < 1_000_000, "{error} ns");
    }

    #[test]
    fn times_before_the_last_anchor_never_change() {
        let anchor = |ticks, monotonic_ns| Anchor { ticks, monotonic_ns, error_ns: 0 };
        let mut calibration = Calibration::between(anchor(0, 1000), anchor(1000, 2000));
        let before: Vec<u64> = (0..=1000).step_by(50).map(|ticks| calibration.along_the_line(ticks)).collect();
        calibration.add(anchor(2000, 3500));
        let after: Vec<u64> = (0..=1000).step_by(50).map(|ticks| calibration.along_the_line(ticks)).collect();
        assert_eq!(before, after);
        assert_eq!(calibration.along_the_line(1500), 2750);
        // The middle anchor lies 250 ns below the line from 1000 to 3500.
        assert_eq!(calibration.error_ns(), 250);
    }

    proptest! {
        /// A counter of some rate that wanders as a steered clock does, and anchors with errors: what is converted lies
        /// within the bound that the calibration states, and in order.
        #[test]
        fn the_error_stays_within_its_bound(
            ghz in 0.5f64..5.0,
            ppm in -400.0f64..400.0,
            noise in prop::collection::vec(-40i64..=40, 3..40),
        ) {
            const STEP: u64 = 50_000_000;
            // The rate swings by `ppm` over 40 steps.
            let truth = |ticks: u64| {
                let seconds = ticks as f64 / (ghz * 1e9);
                let swing = ppm * 1e-6 * (seconds * std::f64::consts::PI).sin() / std::f64::consts::PI;
                1_000_000_000 + ((seconds + swing) * 1e9) as u64
            };
            let anchors: Vec<Anchor> = noise.iter().zip(0u64..).map(|(noise, step)| {
                let ticks = step * STEP;
                Anchor { ticks, monotonic_ns: truth(ticks).saturating_add_signed(*noise), error_ns: 40 }
            }).collect();
            let mut calibration = Calibration::between(anchors[0], anchors[1]);
            anchors.iter().skip(2).for_each(|anchor| calibration.add(*anchor));
            let end = (noise.len() as u64 - 1) * STEP;
            let mut last = 0;
            for ticks in (0..end).step_by(STEP as usize / 7) {
                let converted = calibration.along_the_line(ticks);
                let off = converted.abs_diff(truth(ticks));
                prop_assert!(off <= calibration.error_ns() + 2, "{off} ns off, bound {}", calibration.error_ns());
                prop_assert!(converted >= last);
                last = converted;
            }
        }

        #[test]
        fn an_endless_recording_keeps_few_anchors_and_its_order(rate in 1u64..4) {
            let mut calibration = Calibration::between(
                Anchor { ticks: 0, monotonic_ns: 7, error_ns: 0 },
                Anchor { ticks: 10, monotonic_ns: 7 + 10 * rate, error_ns: 0 },
            );
            for at in 2..3 * ANCHORS_MAX as u64 {
                calibration.add(Anchor { ticks: at * 10, monotonic_ns: 7 + at * 10 * rate, error_ns: 0 });
            }
            prop_assert!(calibration.anchors.len() <= ANCHORS_MAX);
            for ticks in [0, 5, 999, 77_777, 3 * ANCHORS_MAX as u64 * 10] {
                prop_assert_eq!(calibration.along_the_line(ticks), 7 + ticks * rate);
            }
        }
    }
}
