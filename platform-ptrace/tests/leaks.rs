//! Nothing outlives a platform: no process, no zombie, no descriptor, also when the sandbox process is killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform::suite::asm::Asm;
use platform::suite::lab::{Lab, run, start_state};
use platform::{Exit, Platform};
use platform_ptrace::PtracePlatform;

fn factory() -> std::io::Result<Arc<dyn Platform>> {
    Ok(Arc::new(PtracePlatform::new()?))
}

fn children() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Makes spaces on two CPUs and runs a call in each.
fn busy(lab: &Lab) {
    let code = Asm::new().syscall();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let mut cpu = lab.cpu();
                for n in 0..50 {
                    let space = lab.program(&code);
                    assert_eq!(run(&mut *cpu, &space, &mut start_state()), Exit::Syscall);
                    if n % 2 == 0 {
                        cpu.forget(&space);
                    }
                }
            });
        }
    });
}

const CHILD: &str = "PLATFORM_PTRACE_LEAK_CHILD";

#[test]
fn nothing_outlives_the_platform() {
    if std::env::var_os(CHILD).is_some() {
        return as_child();
    }
    busy(&Lab::new(factory));
    let before = (children(), descriptors());
    for _ in 0..5 {
        busy(&Lab::new(factory));
    }
    assert_eq!((children(), descriptors()), before);
    killed();
}

/// In the child: a platform with live stubs, whose pids are printed, then wait to be killed.
fn as_child() {
    let lab = Lab::new(factory);
    let space = lab.program(&Asm::new().syscall());
    let mut cpu = lab.cpu();
    assert_eq!(run(&mut *cpu, &space, &mut start_state()), Exit::Syscall);
    println!("stubs {}", children().iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    loop {
        std::thread::park();
    }
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).is_some_and(|state| !"ZX".contains(state))
}

fn killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "nothing_outlives_the_platform"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|l| l.contains("stubs ")).expect("the child tells its stubs");
    let pids: Vec<&str> = line.split("stubs ").nth(1).unwrap_or("").split(' ').collect();
    assert!(pids.len() >= 3, "master, seed and one stub: {line}");
    assert!(pids.iter().all(|pid| alive(pid)));
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    while pids.iter().any(|pid| alive(pid)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "stubs outlived the sandbox process: {pids:?}");
        std::thread::yield_now();
    }
}
