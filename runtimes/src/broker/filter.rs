//! Topic filters: what is valid, and what matches.

/// Levels that a filter may have. It bounds the depth of the trie, and thereby the stack that a match takes.
pub(super) const LEVELS_MAX: usize = 128;

/// Whether a filter is well formed (MQTT 4.7) and not too deep.
pub(super) fn is_valid(filter: &str) -> bool {
    if filter.is_empty() {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    let mut depth = 0;
    while let Some(level) = levels.next() {
        depth += 1;
        let wild = level.contains(['+', '#']);
        let last = levels.peek().is_none();
        if wild && level != "+" && !(level == "#" && last) {
            return false;
        }
    }
    depth <= LEVELS_MAX
}

/// Whether it asks for a shared subscription, which this broker does not have.
pub(super) fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// Whether a valid filter matches a topic, level by level. The trie is tested against it; retained messages use it.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut f, mut t) = (filter.split('/'), topic.split('/'));
    loop {
        match (f.next(), t.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// The part of a filter before its first wildcard: topics that match begin with it.
pub(super) fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        // `a/#` matches `a` too.
        Some(at) => filter[..at].strip_suffix('/').unwrap_or(&filter[..at]),
        None => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_says() {
        for f in ["#", "+", "/", "a/+/b", "a/#", "+/+", "//", "$SYS/#"] {
            assert!(is_valid(f), "{f}");
        }
        for f in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "##"] {
            assert!(!is_valid(f), "{f}");
        }
        assert!(is_valid(&vec!["a"; LEVELS_MAX].join("/")) && !is_valid(&vec!["a"; LEVELS_MAX + 1].join("/")));
        for (f, t) in [("a/#", "a"), ("a/#", "a/b/c"), ("+/+", "/f"), ("/+", "/f"), ("#", "a"), ("$SYS/#", "$SYS/x")] {
            assert!(matches(f, t), "{f} {t}");
        }
        for (f, t) in [("+", "/f"), ("#", "$SYS/x"), ("+/x", "$SYS/x"), ("a/+", "a"), ("a", "a/b"), ("a/b", "a")] {
            assert!(!matches(f, t), "{f} {t}");
        }
    }
}
