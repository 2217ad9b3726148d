//! The CPU layout: which CPUs the driver and the server use, why, and what a host like this cannot show.
//!
//! Why: a driver that waits for a CPU sends late, and a late driver makes a slow server of every stack. With four CPUs
//! or more the driver has one to itself. With two or three nobody can know beforehand whether a CPU of its own is worth
//! the server's loss, so both layouts are tried in a pilot and the first that passes the gates is taken. A pilot looks
//! at the driver and the errors only, never at the tail.
//!
//! It leaves out NUMA nodes: a server that spans nodes shows their costs, in every arm alike.

use crate::arms::{list, plural};
use regauge_traces::study::LayoutRecord;
use std::collections::BTreeMap;

/// From so many CPUs the driver gets one without asking.
const CPUS_FOR_OWN_DRIVER: usize = 4;

/// A moment's noise must not decide for a whole study: so often each candidate is tried.
const PILOT_ROUNDS: usize = 2;

/// Name of the layout in which the driver owns its CPU.
pub const DISJOINT: &str = "disjoint";
/// Name of the layout in which driver and server run on the same CPUs.
pub const SHARED: &str = "shared";

/// The CPUs of the host, as far as a layout depends on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpus {
    /// CPUs that this process may use, ascending.
    pub allowed: Vec<usize>,
    /// For each CPU the hyperthreads of its core, itself included; empty when the host does not say.
    pub siblings: BTreeMap<usize, Vec<usize>>,
    /// Whether a hypervisor stands below; `None` when unknown.
    pub is_virtual: Option<bool>,
}

/// What a pilot run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pilot {
    /// One sentence per gate that failed; empty when the layout is good.
    pub failed: Vec<String>,
}

/// Layouts worth trying on these CPUs, the preferred first.
pub fn candidates(cpus: &Cpus) -> Vec<LayoutRecord> {
    match cpus.allowed.len() {
        0 | 1 => vec![shared(cpus, "one CPU is all there is, so driver and server share it")],
        n if n < CPUS_FOR_OWN_DRIVER => vec![
            disjoint(cpus, "the pilot kept the gates with a CPU for the driver alone"),
            shared(cpus, "the pilot broke the gates when the driver had a CPU to itself, so both sides share all"),
        ],
        n => vec![disjoint(cpus, &format!("{n} CPUs are enough to give the driver one of its own"))],
    }
}

/// A layout by its name, whether or not it would be tried here; `None` when this host cannot have it.
pub fn named(cpus: &Cpus, name: &str) -> Option<LayoutRecord> {
    let why = "asked for by name, without a pilot";
    match name {
        SHARED if !cpus.allowed.is_empty() => Some(shared(cpus, why)),
        DISJOINT if cpus.allowed.len() > 1 => Some(disjoint(cpus, why)),
        _ => None,
    }
}

/// Takes the first candidate whose pilot passes. A lone candidate needs no pilot; when none passes twice, the last one
/// stands and its `why` says so: the gates of each run still decide what enters a table.
pub fn choose<E>(
    candidates: Vec<LayoutRecord>,
    mut pilot: impl FnMut(&LayoutRecord) -> Result<Pilot, E>,
) -> Result<Option<LayoutRecord>, E> {
    if candidates.len() < 2 {
        return Ok(candidates.into_iter().next());
    }
    let mut refused: Vec<String> = Vec::new();
    for _ in 0..PILOT_ROUNDS {
        refused.clear();
        for layout in &candidates {
            let outcome = pilot(layout)?;
            if outcome.failed.is_empty() {
                let mut layout = layout.clone();
                if !refused.is_empty() {
                    layout.why = format!("{} ({})", layout.why, refused.join("; "));
                }
                return Ok(Some(layout));
            }
            refused.push(format!("{}: {}", layout.name, outcome.failed.join(", ")));
        }
    }
    Ok(candidates.into_iter().last().map(|mut layout| {
        layout.why = format!(
            "no layout kept the gates in {PILOT_ROUNDS} pilots each; this one has the widest limits ({})",
            refused.join("; ")
        );
        layout
    }))
}

/// The CPU that the driver has to itself, on which it may spin.
pub fn driver_own(layout: &LayoutRecord) -> Option<usize> {
    match layout.driver_cpus.as_slice() {
        [own] if !layout.server_cpus.contains(own) => Some(*own),
        _ => None,
    }
}

fn disjoint(cpus: &Cpus, why: &str) -> LayoutRecord {
    let Some((&own, rest)) = cpus.allowed.split_last() else {
        return shared(cpus, why);
    };
    // A hyperthread beside a spinning driver runs at about half speed: leave it idle where CPUs are plenty.
    let on_core: Vec<usize> = siblings(cpus, own).into_iter().filter(|c| rest.contains(c)).collect();
    let without: Vec<usize> = rest.iter().copied().filter(|c| !on_core.contains(c)).collect();
    let spared = without.len() >= 2;
    let server = if spared { without } else { rest.to_vec() };
    let mut limits = Vec::new();
    if !spared && !on_core.is_empty() {
        limits.push(format!(
            "The driver's CPU {own} and the server's CPU {} are hyperthreads of one core: the driver slows the server \
             on it.",
            list(&on_core)
        ));
    }
    limits.extend(server_limits(cpus, &server));
    limits.push("Driver and server are on one host: loopback instead of a network, and one last-level cache.".into());
    limits.extend(virtual_limit(cpus));
    LayoutRecord { name: DISJOINT.into(), driver_cpus: vec![own], server_cpus: server, why: why.to_owned(), limits }
}

fn shared(cpus: &Cpus, why: &str) -> LayoutRecord {
    let mut limits = vec![
        "Driver and server compete for the same CPUs: the driver's own work is in every latency, and an arm that needs \
         more CPU also delays the driver. Small differences between arms are not to be trusted."
            .to_owned(),
    ];
    limits.extend(server_limits(cpus, &cpus.allowed));
    limits.push("Driver and server are on one host: loopback instead of a network, and shared caches.".into());
    limits.extend(virtual_limit(cpus));
    LayoutRecord {
        name: SHARED.into(),
        driver_cpus: cpus.allowed.clone(),
        server_cpus: cpus.allowed.clone(),
        why: why.to_owned(),
        limits,
    }
}

fn server_limits(cpus: &Cpus, server: &[usize]) -> Vec<String> {
    let mut limits = Vec::new();
    if server.len() < 2 {
        limits.push(
            "The server has one CPU: tokio's workers have nobody to steal from, no wake-up crosses cores, and nothing \
             is seen of how several shards share the work."
                .to_owned(),
        );
    } else if server.len() < 4 {
        limits.push(format!(
            "The server has {}: effects of contention and of wake-ups across many cores are smaller here than on a \
             production host.",
            plural(server.len(), "CPU")
        ));
    }
    let shares_core = |c: &usize| siblings(cpus, *c).iter().any(|s| s != c && server.contains(s));
    if server.iter().any(shares_core) {
        limits
            .push("Some of the server's CPUs are hyperthreads of one core: shards on them slow each other.".to_owned());
    }
    limits
}

fn virtual_limit(cpus: &Cpus) -> Option<String> {
    (cpus.is_virtual == Some(true)).then(|| {
        "The host is virtual: neighbours can take time from it (the steal gate sees only what the hypervisor reports), \
         and its cores and caches need not be what they seem."
            .to_owned()
    })
}

fn siblings(cpus: &Cpus, cpu: usize) -> Vec<usize> {
    cpus.siblings.get(&cpu).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn host(n: usize, hyperthreads: bool) -> Cpus {
        let core = |c: usize| if hyperthreads { vec![c / 2 * 2, c / 2 * 2 + 1] } else { vec![c] };
        Cpus { allowed: (0..n).collect(), siblings: (0..n).map(|c| (c, core(c))).collect(), is_virtual: Some(false) }
    }

    fn pilot(failing: &'static [&'static str]) -> impl FnMut(&LayoutRecord) -> Result<Pilot, String> {
        move |layout| {
            let fails = failing.contains(&layout.name.as_str());
            Ok(Pilot { failed: if fails { vec!["driver_lag".into()] } else { Vec::new() } })
        }
    }

    #[test]
    fn four_cpus_give_the_driver_the_last_one_without_a_pilot() {
        let never = |_: &LayoutRecord| -> Result<Pilot, String> { Err("a pilot ran".into()) };
        let layout = choose(candidates(&host(4, false)), never).unwrap().unwrap();
        assert_eq!(
            (layout.name.as_str(), &layout.driver_cpus[..], &layout.server_cpus[..]),
            (DISJOINT, &[3][..], &[0, 1, 2][..])
        );
        assert_eq!(driver_own(&layout), Some(3));
    }

    #[test]
    fn the_hyperthread_beside_the_driver_stays_idle_when_cpus_are_plenty() {
        let layout = candidates(&host(8, true)).remove(0);
        assert_eq!(layout.server_cpus, [0, 1, 2, 3, 4, 5]);
        let tight = candidates(&host(2, true)).remove(0);
        assert_eq!(tight.server_cpus, [0]);
        assert!(tight.limits[0].contains("hyperthreads"), "{:?}", tight.limits);
    }

    #[test]
    fn two_cpus_take_the_first_layout_that_keeps_the_gates() {
        let good = choose(candidates(&host(2, false)), pilot(&[])).unwrap().unwrap();
        assert_eq!((good.name.as_str(), &good.server_cpus[..]), (DISJOINT, &[0][..]));
        assert!(good.limits.iter().any(|l| l.contains("steal from")));

        let second = choose(candidates(&host(2, false)), pilot(&[DISJOINT])).unwrap().unwrap();
        assert_eq!((second.name.as_str(), &second.server_cpus[..]), (SHARED, &[0, 1][..]));
        assert!(second.why.contains("disjoint: driver_lag"), "{}", second.why);
        assert_eq!(driver_own(&second), None);

        let mut tried = 0;
        let noisy_once = |layout: &LayoutRecord| -> Result<Pilot, String> {
            tried += 1;
            pilot(if tried <= 2 { &[DISJOINT, SHARED] } else { &[] })(layout)
        };
        assert_eq!(choose(candidates(&host(2, false)), noisy_once).unwrap().unwrap().name, DISJOINT);

        let none = choose(candidates(&host(3, false)), pilot(&[DISJOINT, SHARED])).unwrap().unwrap();
        assert!(none.why.starts_with("no layout kept the gates"), "{}", none.why);
    }

    #[test]
    fn a_layout_can_be_asked_for_where_it_is_possible() {
        assert_eq!(named(&host(8, false), SHARED).unwrap().server_cpus.len(), 8);
        assert_eq!(named(&host(2, false), DISJOINT).unwrap().server_cpus, [0]);
        assert_eq!(named(&host(1, false), DISJOINT), None);
        assert_eq!(named(&host(4, false), "sideways"), None);
    }

    #[test]
    fn one_cpu_is_shared_and_says_what_it_cannot_show() {
        let layout = choose(candidates(&host(1, false)), pilot(&[SHARED])).unwrap().unwrap();
        assert_eq!((layout.name.as_str(), driver_own(&layout)), (SHARED, None));
        assert!(layout.limits.iter().any(|l| l.contains("steal from")));
        assert!(layout.limits.iter().any(|l| l.contains("compete")));
    }
}
