//! The expectations file: tests that are known to fail, or that cannot run, on a platform, each with its reason.
//!
//! A line is `TEST PLATFORM OUTCOME REASON...`; OUTCOME is `fail` or `skip`, PLATFORM may be `*`. An expected failure
//! that passes fails the run, as does a line that names no test. There is no word for "now and then": a test that is
//! not deterministic is a defect of the test or of the sandbox.

use std::path::Path;

/// What is expected of a case that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It runs and fails.
    Fail,
    /// It is not run.
    Skip,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The test's name.
    pub test: String,
    /// The platform, or `*`.
    pub platform: String,
    /// What is expected.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    line: usize,
}

/// The whole file.
#[derive(Clone, Debug, Default)]
pub struct Expectations(Vec<Expectation>);

impl Expectations {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a line is not of the form above.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| format!("{}:{e}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            if raw.trim().is_empty() || raw.starts_with('#') {
                continue;
            }
            let mut words = raw.split_whitespace();
            let (Some(test), Some(platform), Some(outcome)) = (words.next(), words.next(), words.next()) else {
                return Err(format!("{line}: not TEST PLATFORM OUTCOME REASON"));
            };
            let outcome = match outcome {
                "fail" => Outcome::Fail,
                "skip" => Outcome::Skip,
                other => return Err(format!("{line}: `{other}` is no outcome: fail or skip")),
            };
            let reason = words.collect::<Vec<_>>().join(" ");
            if reason.is_empty() {
                return Err(format!("{line}: no reason"));
            }
            all.push(Expectation { test: test.into(), platform: platform.into(), outcome, reason, line });
        }
        Ok(Expectations(all))
    }

    /// What is expected of `test` on `platform`; `None`: that it passes.
    #[must_use]
    pub fn of(&self, test: &str, platform: &str) -> Option<&Expectation> {
        self.0.iter().find(|e| e.test == test && (e.platform == "*" || e.platform == platform))
    }

    /// Lines that name no test, as messages. `known` are test and platform of every case there is on any machine.
    #[must_use]
    pub fn unknown(&self, known: &[(&str, &str)], platforms: &[&str]) -> Vec<String> {
        let exists = |e: &Expectation| {
            known.iter().any(|(test, platform)| *test == e.test && (e.platform == "*" || *platform == e.platform))
        };
        // A platform that this run leaves out still has its lines.
        let elsewhere =
            |e: &Expectation| known.iter().any(|(test, _)| *test == e.test) && platforms.contains(&e.platform.as_str());
        let bad = self.0.iter().filter(|e| !exists(e) && !elsewhere(e));
        bad.map(|e| format!("expectations:{}: no test {} on {}", e.line, e.test, e.platform)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let all = Expectations::parse("# c\n\nguest/a kvm fail it is hard\nguest/b * skip why\n").unwrap();
        assert_eq!(all.of("guest/a", "kvm").unwrap().reason, "it is hard");
        assert!(all.of("guest/a", "ptrace").is_none());
        assert_eq!(all.of("guest/b", "ptrace").unwrap().outcome, Outcome::Skip);
        assert_eq!(all.unknown(&[("guest/a", "ptrace")], &["kvm"]).len(), 1);
        for bad in ["a b fail", "a b flaky reason", "a b"] {
            assert!(Expectations::parse(bad).is_err(), "{bad}");
        }
    }
}
