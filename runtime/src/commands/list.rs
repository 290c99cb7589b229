//! `list`.

use super::Context;
use crate::cli::oci::{ListArgs, ListFormat};
use crate::failure::{Failure, Result};
use crate::output;
use crate::state::{Record, Status};

/// `nanovisor list`.
///
/// # Errors
/// Standard output cannot be written.
pub fn list(cx: &Context, args: &ListArgs) -> Result<()> {
    let all: Vec<(Record, Status)> = cx.store.all().into_iter().map(|r| (r.status(), r)).map(|(s, r)| (r, s)).collect();
    if args.quiet {
        let names: String = all.iter().map(|(record, _)| format!("{}\n", record.id)).collect();
        return output::print(&names);
    }
    if args.format == ListFormat::Json {
        let states: Vec<_> = all.iter().map(|(record, status)| record.full_state(*status)).collect();
        let text = serde_json::to_string(&states).map_err(|e| Failure::runtime(e.to_string()))?;
        return output::print(&text);
    }
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec();
    let rows = all.iter().map(|(record, status)| {
        let state = record.full_state(*status);
        let text = |key: &str| state.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        ["id", "pid", "status", "bundle", "created", "owner"].map(|key| text(key).unwrap_or_default()).to_vec()
    });
    output::print(&columns(std::iter::once(head).chain(rows).collect()))
}

/// Columns of at least twelve, three apart, as Go's tabwriter makes them for runc.
pub fn columns(rows: Vec<Vec<String>>) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, n: usize| row.get(n).map_or(0, |c| c.chars().count());
    let widths: Vec<usize> =
        (0..count).map(|n| rows.iter().map(|row| cell(row, n) + 3).max().unwrap_or(0).max(12)).collect();
    let mut text = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            let fill = if n == last { 0 } else { width.saturating_sub(cell.chars().count()) };
            text.extend(std::iter::repeat_n(' ', fill));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_runc_s() {
        let rows = [["ID", "PID", "X"], ["a-rather-long-name", "1", "y"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        assert_eq!(columns(rows), "ID                   PID         X\na-rather-long-name   1           y\n");
    }
}
