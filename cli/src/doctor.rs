//! What this machine can and cannot do for builds ([`Finding`]), and what dead builds have left on it. One file for each
//! kind of finding.

pub(crate) mod leftovers;
pub(crate) mod machine;
pub(crate) mod manifest;
pub(crate) mod tools;

use serde::Serialize;

/// Something that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// What.
    pub(crate) name: String,
    /// How it is.
    pub(crate) state: State,
    /// What exactly was found.
    pub(crate) detail: String,
    /// How to get it, where it is not there.
    pub(crate) hint: Option<String>,
    /// Whether no build can run without it.
    pub(crate) needed: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Not there, or not usable.
    Missing,
}

impl Finding {
    /// Something that is there.
    pub(crate) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Ok, detail: detail.into(), hint: None, needed: false }
    }

    /// Something that is not there, and how to get it.
    pub(crate) fn missing(name: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        Self { name: name.into(), state: State::Missing, detail: detail.into(), hint, needed: false }
    }

    /// No build can run without it.
    #[must_use]
    pub(crate) fn needed(self) -> Self {
        Self { needed: true, ..self }
    }

    /// Whether it keeps all builds from running.
    pub(crate) fn is_fatal(&self) -> bool {
        self.needed && self.state == State::Missing
    }
}
