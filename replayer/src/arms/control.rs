//! The control arm (A′): the base once more under another name, in every block.
//!
//! Why: whatever ratio a setup shows between equals is what it can show between unequals without meaning anything. No
//! figure of two different arms says how large that is.

use super::{Arm, Arms, NAME_MAX};
use regauge_runtimes::settings::Settings;

/// What is appended to the base's name.
const SUFFIX: &str = "-again";

impl Arms {
    /// Makes sure that an arm repeats the base and returns its name: one that the file has already, or a new one that
    /// is called as the base with `-again` behind it.
    pub fn add_control(&mut self) -> Option<String> {
        let base = self.arms.iter().find(|arm| arm.name == self.base)?;
        let repeats = |arm: &&Arm| arm.name != base.name && same(arm, base);
        if let Some(control) = self.arms.iter().find(repeats) {
            return Some(control.name.clone());
        }
        let taken = |name: &String| self.arms.iter().any(|arm| arm.name == *name);
        let numbered = (1..).map(|n: u32| {
            let suffix = if n == 1 { SUFFIX.to_owned() } else { format!("{SUFFIX}-{n}") };
            // Names are ASCII, so any byte is a boundary.
            let room = NAME_MAX.saturating_sub(suffix.len()).min(base.name.len());
            base.name.get(..room).unwrap_or_default().to_owned() + &suffix
        });
        let name = numbered.into_iter().find(|name| !taken(name))?;
        let mut control = base.clone();
        control.name.clone_from(&name);
        self.arms.push(control);
        Some(name)
    }
}

/// Whether two arms are the same but for their names: on a host with CPUs to spare they come to the same settings.
fn same(a: &Arm, b: &Arm) -> bool {
    let cpus: Vec<usize> = (0..4096).collect();
    let settings = |arm: &Arm| -> Option<Settings> { arm.resolve(&cpus, &cpus, None).ok() };
    // What follows from the host is written as such: an arm that spells out this host's number is another one.
    let open = |arm: &Arm| (arm.row.threads, arm.row.cpus.clone());
    a.stack == b.stack && open(a) == open(b) && settings(a).is_some_and(|of_a| Some(of_a) == settings(b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn arms(rest: &str) -> Arms {
        Arms::parse(&format!("base = \"a\"\n[[arm]]\nname = \"a\"\nstack = \"tokio-shared\"\n{rest}"), "x").unwrap()
    }

    #[test]
    fn the_base_is_repeated_under_a_name_of_its_own() {
        let mut plain = arms("[[arm]]\nname = \"a-again\"\nstack = \"compio\"\n");
        assert_eq!(plain.add_control().unwrap(), "a-again-2");
        assert_eq!(plain.names().collect::<Vec<_>>(), ["a", "a-again", "a-again-2"]);
        let records = plain.resolve(&[0, 1], &[0, 1], None).unwrap();
        assert_eq!((&records[0].stack, &records[0].settings), (&records[2].stack, &records[2].settings));
        // Asked again, it is there.
        assert_eq!(plain.add_control().unwrap(), "a-again-2");
        assert_eq!(plain.names().count(), 3);
    }

    #[test]
    fn an_arm_that_repeats_the_base_already_is_the_control() {
        let spelled = format!("[[arm]]\nname = \"b\"\nstack = \"tokio-shared\"\npartitions = {}\n", {
            Settings::default().partitions
        });
        assert_eq!(arms(&spelled).add_control().unwrap(), "b");
        assert_eq!(arms("[[arm]]\nname = \"b\"\nstack = \"tokio-pinned\"\n").add_control().unwrap(), "a-again");
        assert_eq!(
            arms("[[arm]]\nname = \"b\"\nstack = \"tokio-shared\"\nthreads = 1\n").add_control().unwrap(),
            "a-again"
        );
    }

    #[test]
    fn a_long_name_still_fits() {
        let long = "x".repeat(NAME_MAX);
        let text = format!("base = \"{long}\"\n[[arm]]\nname = \"{long}\"\nstack = \"compio\"\n");
        let name = Arms::parse(&text, "x").unwrap().add_control().unwrap();
        assert!(name.len() == NAME_MAX && name.ends_with("-again"), "{name}");
    }
}
