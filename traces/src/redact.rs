//! Redaction: client ids and topics become keyed hashes before anything is stored.
//!
//! Equality survives, so that a replay has the same sessions, the same topics and the same matches between filters and
//! topics; the names do not. The hash is SipHash-2-4 (Aumasson and Bernstein, 2012) under a 128-bit key: without the
//! key, guessing names and comparing hashes is of no use, which an unkeyed hash would allow. Whoever has the key can
//! test guesses, so it is never stored; a trace names it by a fingerprint only.
//!
//! What stays visible: how many clients and topics there are, how topics are nested, who publishes where and when, and
//! sizes. What this module leaves out: user names, passwords and payloads; a recorder drops those unhashed.

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;
use std::fmt;
use std::path::Path;

use crate::error::TraceError;
use crate::meta::Redaction;

/// Name of the method in a trace's metadata.
pub const METHOD: &str = "siphash-2-4";

/// Characters of a redacted level: 60 bits in base32.
pub const LEVEL_CHARS: usize = 12;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What is hashed is told apart by a first byte, so that a client id and an equal topic level differ.
const SESSION: u8 = 1;
const LEVEL: u8 = 2;

/// A redaction key. Neither `Debug` nor any other way shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactionKey([u8; 16]);

impl RedactionKey {
    /// A key that nobody knows, from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails.
    pub fn generate() -> Result<RedactionKey, TraceError> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)
            .map_err(|e| TraceError::Key(format!("no redaction key: the system gives no random bytes ({e})")))?;
        Ok(RedactionKey(key))
    }

    /// A key from 16 bytes.
    pub fn from_bytes(key: [u8; 16]) -> RedactionKey {
        RedactionKey(key)
    }

    /// A key from 32 hex digits; white space around them is allowed.
    ///
    /// # Errors
    /// Anything else. The text is not repeated in the error: it may be a secret.
    pub fn from_hex(hex: &str) -> Result<RedactionKey, TraceError> {
        let hex = hex.trim();
        let mut key = [0; 16];
        if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(TraceError::Key(format!(
                "a redaction key is 32 hex digits, and this has {} characters: make one with `openssl rand -hex 16`",
                hex.chars().count()
            )));
        }
        for (byte, pair) in key.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = pair.iter().fold(0, |value, digit| {
                value << 4 | u8::try_from(char::from(*digit).to_digit(16).unwrap_or(0)).unwrap_or(0)
            });
        }
        Ok(RedactionKey(key))
    }

    /// A key from a file that holds 32 hex digits.
    ///
    /// # Errors
    /// When the file cannot be read, or holds anything else.
    pub fn from_file(path: impl AsRef<Path>) -> Result<RedactionKey, TraceError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| TraceError::Key(format!("cannot read the redaction key from {}: {e}", path.display())))?;
        RedactionKey::from_hex(&text)
    }

    /// A fingerprint: 8 hex digits of a SHA-256. It tells keys apart and gives no way back.
    pub fn id(&self) -> String {
        let digest = Sha256::new().chain_update(b"regauge redaction key\n").chain_update(self.0).finalize();
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedactionKey({}…)", self.id())
    }
}

/// Hides names. Cheap to clone; one per recording.
#[derive(Debug, Clone)]
pub struct Redactor {
    hasher: Hasher,
    key_id: String,
}

#[derive(Clone)]
struct Hasher(SipHasher24);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(METHOD)
    }
}

impl Redactor {
    /// Hides names under `key`.
    pub fn new(key: &RedactionKey) -> Redactor {
        Redactor { hasher: Hasher(SipHasher24::new_with_key(&key.0)), key_id: key.id() }
    }

    /// What the metadata of the trace says.
    pub fn redaction(&self) -> Redaction {
        Redaction { method: METHOD.to_owned(), key_id: self.key_id.clone() }
    }

    /// The session of a client id.
    pub fn session(&self, client_id: &[u8]) -> u64 {
        self.hash(SESSION, client_id)
    }

    /// A topic name or topic filter, level by level.
    ///
    /// Separators, empty levels, `+`, `#`, a leading `$share` and a leading `$SYS` (of the filter within a shared
    /// subscription too) stay as they are. Any other level becomes 12 characters, with `$` before them if it began
    /// with `$`, since such topics are outside of wildcards at the root.
    pub fn topic(&self, topic: &str) -> String {
        let levels = topic.bytes().filter(|b| *b == b'/').count() + 1;
        let mut redacted = String::with_capacity(levels * (LEVEL_CHARS + 1) + 1);
        let mut rest = topic;
        if let Some((group, filter)) = topic.strip_prefix("$share/").and_then(|shared| shared.split_once('/')) {
            redacted.push_str("$share/");
            self.push_level(group, false, &mut redacted);
            redacted.push('/');
            rest = filter;
        }
        for (position, level) in rest.split('/').enumerate() {
            if position > 0 {
                redacted.push('/');
            }
            self.push_level(level, position == 0, &mut redacted);
        }
        redacted
    }

    /// The `target` of a SUBSCRIBE: `filter@options` joined by `,`. Options are the MQTT 5 subscription options byte,
    /// or the QoS in MQTT 3.1.1. Redacted filters contain neither `@` nor `,`.
    pub fn subscriptions<'a>(&self, filters: impl IntoIterator<Item = (&'a str, u8)>) -> String {
        let filters: Vec<String> =
            filters.into_iter().map(|(filter, options)| format!("{}@{options}", self.topic(filter))).collect();
        filters.join(",")
    }

    /// The `target` of an UNSUBSCRIBE: filters joined by `,`.
    pub fn filters<'a>(&self, filters: impl IntoIterator<Item = &'a str>) -> String {
        let filters: Vec<String> = filters.into_iter().map(|filter| self.topic(filter)).collect();
        filters.join(",")
    }

    fn push_level(&self, level: &str, first: bool, redacted: &mut String) {
        if level.is_empty() || level == "+" || level == "#" || (first && level == "$SYS") {
            redacted.push_str(level);
            return;
        }
        if level.starts_with('$') {
            redacted.push('$');
        }
        push_base32(self.hash(LEVEL, level.as_bytes()), redacted);
    }

    fn hash(&self, domain: u8, bytes: &[u8]) -> u64 {
        use std::hash::Hasher as _;
        let mut hasher = self.hasher.0;
        hasher.write(&[domain]);
        hasher.write(bytes);
        hasher.finish()
    }
}

/// The low 60 bits, highest first, five to a character.
pub(crate) fn push_base32(hash: u64, text: &mut String) {
    for position in (0..LEVEL_CHARS).rev() {
        let index = (hash >> (5 * position)) & 31;
        text.push(char::from(ALPHABET.get(index as usize).copied().unwrap_or(b'a')));
    }
}

/// Takes the `target` of a SUBSCRIBE apart: filters with their options.
///
/// # Errors
/// In words, if it is not of that form.
pub fn parse_subscriptions(target: &str) -> Result<Vec<(&str, u8)>, String> {
    target
        .split(',')
        .map(|entry| {
            let (filter, options) =
                entry.rsplit_once('@').ok_or_else(|| format!("`{entry}` is not of the form filter@options"))?;
            let options = options.parse().map_err(|_| format!("`{options}` is not an options byte"))?;
            if filter.is_empty() { Err("a filter is empty".to_owned()) } else { Ok((filter, options)) }
        })
        .collect()
}

/// Takes the `target` of an UNSUBSCRIBE apart.
pub fn parse_filters(target: &str) -> Vec<&str> {
    target.split(',').collect()
}
