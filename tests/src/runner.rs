//! Runs cases two at a time, holds results against the expectations, and counts as cargo's own tests do.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::expect::{Expectations, Outcome};

/// What running a case gives: a failure is told in lines.
pub type CaseResult = Result<(), String>;

/// One test on one platform.
pub struct Case {
    /// The test, as the expectations name it: `guest/hello`, `cli/exit_status`.
    pub test: String,
    /// `native`, a platform, or a platform with `+chaos`.
    pub platform: String,
    /// Its body.
    pub run: Box<dyn Fn() -> CaseResult + Send + Sync>,
    /// Whether it needs the machine for itself: nothing else of the suite runs meanwhile.
    pub alone: bool,
}

impl Case {
    /// A case that may run beside others.
    pub fn new(
        test: impl Into<String>,
        platform: impl Into<String>,
        run: impl Fn() -> CaseResult + Send + Sync + 'static,
    ) -> Self {
        Case { test: test.into(), platform: platform.into(), run: Box::new(run), alone: false }
    }

    /// The same, to run with nothing beside it.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// `TEST/PLATFORM`, what filters match.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.test, self.platform)
    }
}

/// What the command line asks: the arguments of cargo's own test programs that make sense here.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    /// Only print names.
    pub list: bool,
    threads: Option<usize>,
}

impl Selection {
    /// Reads arguments.
    ///
    /// # Errors
    /// An unknown flag.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut selection = Selection::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => selection.exact = true,
                "--list" => selection.list = true,
                "--nocapture" | "--quiet" | "-q" | "--show-output" => {}
                "--skip" => selection.skip.extend(args.next()),
                "--test-threads" => selection.threads = args.next().and_then(|n| n.parse().ok()),
                flag if flag.starts_with("--test-threads=") => {
                    selection.threads = flag.rsplit('=').next().and_then(|n| n.parse().ok());
                }
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "unknown flag {flag}; --exact, --list, --skip TEXT, --test-threads N, or names"
                    ));
                }
                name => selection.filters.push(name.to_owned()),
            }
        }
        Ok(selection)
    }

    /// Whether the run is of named tests only.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Whether a case is asked for.
    #[must_use]
    pub fn takes(&self, case: &Case) -> bool {
        let id = case.id();
        let matches = |filter: &String| {
            if self.exact { id == *filter || case.test == *filter } else { id.contains(filter.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skip.iter().any(|s| id.contains(s.as_str()))
    }
}

struct Counts {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: usize,
    expected: usize,
    slowest: Vec<(Duration, String)>,
}

/// Runs `cases`; `left_out` were sampled away. Returns whether all went as expected.
#[must_use]
pub fn run(cases: Vec<Case>, left_out: usize, selection: &Selection, expectations: &Expectations) -> bool {
    let start = Instant::now();
    println!("\nrunning {} tests", cases.len());
    let counts = Mutex::new(Counts { passed: 0, failed: Vec::new(), skipped: 0, expected: 0, slowest: Vec::new() });
    let (alone, beside): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|case| case.alone);
    for (list, threads) in [(beside, selection.threads.unwrap_or(2).max(1)), (alone, 1)] {
        let queue = Mutex::new(VecDeque::from(list));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(case) = lock(&queue).pop_front() {
                        run_one(&case, expectations, &counts);
                    }
                });
            }
        });
    }
    report(counts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), left_out, start.elapsed())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_one(case: &Case, expectations: &Expectations, counts: &Mutex<Counts>) {
    let id = case.id();
    let expected = expectations.of(&case.test, &case.platform);
    if let Some(skip) = expected.filter(|e| e.outcome == Outcome::Skip) {
        lock(counts).skipped += 1;
        println!("test {id} ... ignored, {}", skip.reason);
        return;
    }
    let start = Instant::now();
    let result = (case.run)();
    let took = start.elapsed();
    let mut counts = lock(counts);
    counts.slowest.push((took, id.clone()));
    let seconds = format!("{:.1} s", took.as_secs_f64());
    match (result, expected) {
        (Ok(()), None) => {
            counts.passed += 1;
            println!("test {id} ... ok ({seconds})");
        }
        (Err(_), Some(e)) => {
            counts.expected += 1;
            println!("test {id} ... ok, fails as expected ({seconds}): {}", e.reason);
        }
        (Err(text), None) => {
            println!("test {id} ... FAILED ({seconds})");
            counts.failed.push((id, text));
        }
        (Ok(()), Some(e)) => {
            println!("test {id} ... FAILED, passes unexpectedly ({seconds})");
            let text = format!("it passes; remove it from tests/expectations, which says: {}", e.reason);
            counts.failed.push((id, text));
        }
    }
}

fn report(mut counts: Counts, left_out: usize, took: Duration) -> bool {
    counts.slowest.sort_unstable_by_key(|(took, _)| std::cmp::Reverse(*took));
    let slowest: Vec<String> =
        counts.slowest.iter().take(5).map(|(took, id)| format!("{id} {:.1} s", took.as_secs_f64())).collect();
    println!("\nslowest: {}", slowest.join(", "));
    if !counts.failed.is_empty() {
        println!("\nfailures:");
        for (id, text) in &counts.failed {
            println!("\n---- {id} ----\n{}", text.trim_end());
        }
        println!("\nfailures:");
        for (id, _) in &counts.failed {
            println!("    {id}");
        }
    }
    if counts.expected > 0 {
        println!("\n{} of those that passed fail as expected (tests/expectations)", counts.expected);
    }
    let word = if counts.failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; {} ignored; 0 measured; {left_out} filtered out; finished in {:.2}s\n",
        counts.passed + counts.expected,
        counts.failed.len(),
        counts.skipped,
        took.as_secs_f64()
    );
    counts.failed.is_empty()
}
