//! From a snapshot to a running sandbox.

use std::sync::Arc;

use memory::MemoryFile;
use platform::Platform;

use super::{Answer, ControlSource, ExitStatus, Token, outcome, run_workers};
use crate::checkpoint::{self, Destination, Instance, Source, Unusable};
use crate::kernel::Options;
use crate::kernel::container::Requests;

/// Everything a restored sandbox starts with. As in [`super::Config`], nothing is opened by path after this.
pub struct RestoreConfig {
    /// Runs guest code.
    pub platform: Arc<dyn Platform>,
    /// Guest memory, limited to what the sandbox may use, attached to the platform.
    pub memory: Arc<MemoryFile>,
    /// The snapshot, its image, and the streams.
    pub source: Source,
    /// What is the new sandbox's own.
    pub instance: Instance,
    /// What its being there is answered under.
    pub token: Option<Token>,
    /// Kernel settings.
    pub options: Options,
    /// Where the restored sandbox's own checkpoint goes, where one is wanted.
    pub checkpoint: Option<Destination>,
    /// Requests from outside while the sandbox runs.
    pub control: Option<Box<dyn ControlSource>>,
    /// See [`super::Config::seal`].
    pub seal: Box<dyn FnOnce() -> std::io::Result<()> + Send>,
}

/// Restores a sandbox and runs it to its end, as [`super::run`] does with a fresh one.
///
/// # Errors
/// A snapshot that cannot be restored here; host failures while setting up.
pub fn restore(config: RestoreConfig) -> Result<ExitStatus, Unusable> {
    let begun = std::time::Instant::now();
    let kernel = checkpoint::restore(config.platform, config.memory, config.options, config.source, &config.instance)?;
    kernel.checkpoints.set_destination(config.checkpoint);
    let requests = config.control.map(|source| Requests::attach(&kernel, source)).transpose()?;
    (config.seal)()?;
    kernel.memory.count_heap();
    log::debug!("restored in {} us", begun.elapsed().as_micros());
    if let Some(token) = config.token {
        kernel.outside.reply(token, Ok(Answer::Done));
    }
    if let Some(requests) = &requests {
        requests.serve_what_came();
    }
    checkpoint::start(&kernel);
    run_workers(&kernel)?;
    drop(requests);
    Ok(outcome(&kernel))
}
