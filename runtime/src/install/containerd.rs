//! containerd's config.toml.

use toml_edit::{DocumentMut, Item, Table, value};

use crate::shim;

/// The text with our runtime in the table of CRI's; comments and all else stay.
///
/// # Errors
/// It is no TOML, or not of a version that is known.
pub fn with_runtime(text: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
    let version = match document.get("version") {
        Some(version) => version.as_integer().ok_or("version: not a number")?,
        // Without its line a file is of version 1, unless nothing is in it.
        None if document.is_empty() => {
            document["version"] = value(2);
            2
        }
        None => 1,
    };
    let plugin = match version {
        2 => "io.containerd.grpc.v1.cri",
        3 => "io.containerd.cri.v1.runtime",
        n => return Err(format!("version = {n}: only 2 and 3 are known (`containerd config migrate` writes them)")),
    };
    let mut at = document.as_table_mut();
    for key in ["plugins", plugin, "containerd", "runtimes", "nanovisor"] {
        let next = at.entry(key).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        at = next.as_table_mut().ok_or_else(|| format!("{key}: not a table of its own"))?;
    }
    let there = at.get("runtime_type").and_then(Item::as_str) == Some(shim::RUNTIME);
    if there {
        return Ok(text.to_owned());
    }
    at.set_implicit(false);
    at["runtime_type"] = value(shim::RUNTIME);
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        let before = "# ours\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc] # keep\n  runtime_type = \"io.containerd.runc.v2\"\n";
        let after = with_runtime(before).unwrap();
        assert!(after.starts_with(before), "{after}");
        assert!(after.contains("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nanovisor]\nruntime_type = \"io.containerd.nanovisor.v1\""), "{after}");
        assert_eq!(with_runtime(&after).unwrap(), after);
    }

    #[test]
    fn versions_have_their_places() {
        assert!(with_runtime("").unwrap().starts_with("version = 2\n"));
        assert!(with_runtime("version = 3\n").unwrap().contains("io.containerd.cri.v1.runtime"));
        assert!(with_runtime("root = \"/x\"\n").unwrap_err().contains("version = 1"));
        assert!(with_runtime("][").is_err());
        assert!(with_runtime("version = 2\nplugins = 3\n").unwrap_err().contains("plugins"));
    }
}
