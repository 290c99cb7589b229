//! Docker's daemon.json.

use std::path::Path;

use serde_json::{Map, Value, json};

/// The text with our program among the runtimes.
///
/// # Errors
/// It is no JSON object.
pub fn with_runtime(text: &str, program: &Path) -> Result<String, String> {
    let mut all: Map<String, Value> =
        if text.trim().is_empty() { Map::new() } else { serde_json::from_str(text).map_err(|e| e.to_string())? };
    let runtimes = all.entry("runtimes").or_insert_with(|| json!({}));
    let runtimes = runtimes.as_object_mut().ok_or("runtimes: not an object")?;
    let ours = json!({ "path": program });
    if runtimes.get("nanovisor") == Some(&ours) {
        return Ok(text.to_owned());
    }
    runtimes.insert("nanovisor".into(), ours);
    serde_json::to_string_pretty(&all).map(|text| text + "\n").map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        let program = Path::new("/usr/local/bin/nanovisor");
        let after = with_runtime(r#"{ "debug": true, "runtimes": { "x": { "path": "/x" } } }"#, program).unwrap();
        let read: Value = serde_json::from_str(&after).unwrap();
        assert_eq!((&read["debug"], &read["runtimes"]["x"]["path"]), (&json!(true), &json!("/x")));
        assert_eq!(read["runtimes"]["nanovisor"]["path"], "/usr/local/bin/nanovisor");
        assert_eq!(with_runtime(&after, program).unwrap(), after);
        assert!(with_runtime("", program).unwrap().contains("nanovisor"));
        assert!(with_runtime("[]", program).is_err());
        assert!(with_runtime(r#"{"runtimes": 1}"#, program).is_err());
    }
}
