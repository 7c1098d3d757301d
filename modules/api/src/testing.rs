//! Running one module on a throw-away tree.
