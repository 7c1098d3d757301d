//! From the text of a manifest to a plan: formats, validation, lowering, passes, diagnostics, describers.

pub mod passes;
