//! `state`.

use super::Context;
use crate::failure::{Failure, Result};
use crate::output;

/// `nanovisor state`.
///
/// # Errors
/// No such container.
pub fn state(cx: &Context, id: &str) -> Result<()> {
    let record = cx.store.look(id)?;
    let text = serde_json::to_string_pretty(&record.full_state(record.status()));
    output::print(&(text.map_err(|e| Failure::runtime(e.to_string()))? + "\n"))
}
