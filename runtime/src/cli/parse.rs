//! Values of flags.

/// A size: bytes, or with K, M, G or T (powers of 1024; `Ki`, `KB`, `KiB` mean the same).
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size; write bytes, or a number with K, M, G or T (512M, 2G)");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|&n| n > 0).ok_or_else(bad)
}

/// The memory of a sandbox: at least what its kernel and a small program need.
pub fn memory(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 16 << 20;
    let bytes = size(text)?;
    if bytes < LEAST { Err(format!("{text} is too little; a sandbox needs 16M at least")) } else { Ok(bytes) }
}

/// `KEY=VALUE`.
pub fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not of the form KEY=VALUE")),
    }
}

/// A host name, as `sethostname(2)` takes it.
pub fn hostname(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 64;
    let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
    if fits && clean {
        Ok(text.to_owned())
    } else {
        Err("a host name is 1 to 64 letters, digits, `-`, `_` and `.`".into())
    }
}

/// An absolute path of the guest.
pub fn guest_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` must be an absolute path in the image"))
    }
}

/// `USER[:GROUP]`, each a number or a name.
pub fn user(text: &str) -> Result<String, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    if user.is_empty() || group.is_empty() || group.contains(':') {
        return Err(format!("`{text}` is not of the form USER or USER:GROUP"));
    }
    Ok(text.to_owned())
}

/// A JSON object, in its shortest form.
pub fn json_object(text: &str) -> Result<String, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
    if value.is_object() { Ok(value.to_string()) } else { Err("no JSON object".to_owned()) }
}

/// A limit: -1 for none, else a size (0 included: it means "as it is" to runc).
pub fn limit(text: &str) -> Result<i64, String> {
    if let Ok(number) = text.parse::<i64>() {
        return if number >= -1 { Ok(number) } else { Err(format!("`{text}` is no limit; write a size or -1")) };
    }
    i64::try_from(size(text)?).map_err(|_| format!("`{text}` is too large"))
}

/// A time: 5s, 500ms, 1m, 2h; at least a millisecond.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let bad = || format!("`{text}` is no time; write 500ms, 5s, 1m or 2h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let millis = number.checked_mul(unit).filter(|&n| n > 0).ok_or_else(bad)?;
    Ok(std::time::Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_times() {
        assert_eq!(limit("-1"), Ok(-1));
        assert_eq!(limit("64M"), Ok(64 << 20));
        assert!(limit("-2").is_err());
        assert_eq!(duration("500ms"), Ok(std::time::Duration::from_millis(500)));
        assert!(duration("0s").is_err() && duration("5").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        for bad in ["", "M", "0", "-1", "12X", "1.5G", "99999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(memory("1M").is_err());
    }

    #[test]
    fn names() {
        assert!(assignment("A=").is_ok());
        assert!(assignment("=b").is_err());
        assert!(hostname("web-1.example").is_ok());
        assert!(hostname("a b").is_err());
        assert!(user("1000:users").is_ok());
        assert!(user(":1").is_err());
        assert!(guest_path("tmp").is_err());
    }
}
