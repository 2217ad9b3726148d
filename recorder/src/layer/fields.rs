//! Reading a span's fields: the few that a trace has a column for, redacted at once.
//!
//! Text is hashed on the thread that opens the span, so that no name waits in a buffer. A value that is given by its
//! `Display` (`session = %client`) is formatted for that; a field that means nothing is never formatted.

use regauge_traces::Redactor;
use std::fmt::{self, Write};
use tracing_core::field::{Field, Visit};

use super::plan::{Plan, Role};

/// What a span's `target` will be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Target {
    #[default]
    None,
    Partition(u64),
    Proposal(u64),
    Text(Box<str>),
}

/// The fields that were given; the others keep what they had.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) session: Option<u64>,
    pub(super) target: Target,
    pub(super) bytes: Option<u64>,
    pub(super) count: Option<u32>,
    pub(super) qos: Option<u8>,
    pub(super) status: Option<u8>,
}

/// Reads fields by the plan of their callsite.
pub(super) struct Reading<'a> {
    plan: &'a Plan,
    redactor: &'a Redactor,
    pub(super) fields: Fields,
}

impl<'a> Reading<'a> {
    pub(super) fn new(plan: &'a Plan, redactor: &'a Redactor) -> Reading<'a> {
        Reading { plan, redactor, fields: Fields::default() }
    }

    fn text(&mut self, role: Role, text: &str) {
        match role {
            Role::Session => self.fields.session = Some(self.redactor.session(text.as_bytes())),
            Role::Target => self.fields.target = Target::Text(self.redactor.topic(text).into()),
            _ => {}
        }
    }

    fn number(&mut self, role: Role, number: u64) {
        let fields = &mut self.fields;
        match role {
            Role::Session => {
                let mut digits = Digits::default();
                // Twenty digits always fit.
                let _ = write!(digits, "{number}");
                fields.session = Some(self.redactor.session(digits.as_bytes()));
            }
            Role::Target => fields.target = Target::Partition(number),
            // A target that was given says more.
            Role::Proposal if fields.target == Target::None => fields.target = Target::Proposal(number),
            Role::Bytes => fields.bytes = Some(number),
            Role::Count => fields.count = Some(u32::try_from(number).unwrap_or(u32::MAX)),
            Role::Qos => fields.qos = Some(u8::try_from(number).unwrap_or(u8::MAX)),
            Role::Status => fields.status = Some(u8::try_from(number).unwrap_or(u8::MAX)),
            Role::Proposal | Role::Ignored => {}
        }
    }
}

impl Visit for Reading<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(self.plan.role(field.index()), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if let Ok(value) = u64::try_from(value) {
            self.record_u64(field, value);
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.record_u64(field, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        if let Ok(value) = u128::try_from(value) {
            self.record_u128(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(self.plan.role(field.index()), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let role = self.plan.role(field.index());
        if matches!(role, Role::Session | Role::Target) {
            self.text(role, &format!("{value:?}"));
        }
    }

    // These have defaults that would format the value.
    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_bool(&mut self, _: &Field, _: bool) {}
    fn record_bytes(&mut self, _: &Field, _: &[u8]) {}
    fn record_error(&mut self, _: &Field, _: &(dyn std::error::Error + 'static)) {}
}

/// A number's decimal digits, without an allocation.
#[derive(Default)]
struct Digits {
    bytes: [u8; 20],
    length: usize,
}

impl Digits {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
