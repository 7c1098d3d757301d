//! The engine takes a build from a manifest to its results. It joins compiler, modules and executor, for the command
//! and for any other program.
//!
//! ```text
//! Session::open ─ compile ─► Graph ─ preview ─► Plan                        what a build would do
//!                              └──── plan ────► Planned ─ run ─► Built ─ export ─► directories
//! ```
//!
//! It prints nothing, reads no environment variable and has no global state: a program passes these in. What a user
//! must know is returned as typed errors and warnings; what happens during a build is reported as events.
//!
//! Stages run in processes of the same program, so its `main` begins with [`child_main`]:
//!
//! ```standalone_crate
//! use std::error::Error;
//! use std::process::ExitCode;
//!
//! use osbc_engine::{
//!     BuildOptions, Environment, Exported, Interrupt, Request, Session, SessionConfig, Silent, SourceText, StoreConfig,
//!     become_root, builtin, child_main, exports,
//! };
//!
//! fn main() -> ExitCode {
//!     child_main(std::env::args_os()).unwrap_or_else(|| match build() {
//!         Ok(()) => ExitCode::SUCCESS,
//!         Err(error) => panic!("{error}"),
//!     })
//! }
//!
//! fn build() -> Result<(), Box<dyn Error>> {
//!     become_root()?;
//!     let directory = tempfile::tempdir()?;
//!     let manifest = r#"{"version": "2", "pipelines": [{"name": "tree", "stages": [{"type": "org.osbuild.noop"}]}]}"#;
//!     let text = SourceText::from_bytes("manifest.json", manifest.into())?;
//!
//!     let session = Session::open(SessionConfig { libraries: vec![builtin()], environment: Environment::default() })?;
//!     let graph = session.compile(&text)?;
//!     let request = Request::results(exports(&graph, &["tree".to_owned()])?);
//!     let planned = session.plan(&graph, &StoreConfig::own(directory.path().join("store")), &request)?;
//!     planned.check_machine(&Default::default())?;
//!     let built = planned.run(&BuildOptions::default(), &mut Silent, &Interrupt::new()?)?;
//!     assert!(built.outcome.success());
//!     for Exported { export, directory, .. } in built.export(&directory.path().join("out"))? {
//!         println!("{}: {}", export.name, directory.display());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! `examples/watch_events.rs` shows the events.

mod attest;
mod built;
mod catalog;
mod error;
mod export;
mod planned;
mod process;
mod provenance;
mod request;
mod requirements;
mod sbom;
mod session;
#[cfg(test)]
mod tests;
pub mod timeline;

pub use built::Built;
pub use catalog::{builtin, directory};
pub use error::Error;
pub use export::{Exported, check_output};
pub use planned::{BuildOptions, Planned, Silent, Warning};
pub use process::{become_root, child_main};
pub use request::{OsbuildStore, Request, StoreConfig, exports};
pub use requirements::Needed;
pub use session::{Environment, Session, SessionConfig, check_item};

// What the engine takes and returns, so that a program needs only this crate.
pub use osbc_compiler::{ReadError, Report, SourceText};
pub use osbc_executor::event::{Event, Monitor};
pub use osbc_sandbox::interrupt::Interrupt;
