//! The suite: `cargo test -p nanovisor-tests --test suite -- [NAME...]`.

mod stories;

use std::process::ExitCode;

use nanovisor_tests::runner::{Case, Selection};
use nanovisor_tests::{
    checkpoint, compile, env, expect, guest, native, program, random, rootfs, runner, sandbox, supervise, terminal,
};

/// How many cases of the sampled kinds one run takes, unless it is a soak run or names its tests.
const SAMPLE: usize = 60;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let role = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    let rest = args.get(2..).unwrap_or_default();
    let status = match role {
        supervise::ROLE => supervise::main(rest),
        native::ROLE => native::main(rest),
        _ => match suite() {
            Ok(true) => 0,
            Ok(false) => 101,
            Err(e) => {
                eprintln!("error: {e}");
                println!("\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
                101
            }
        },
    };
    ExitCode::from(u8::try_from(status).unwrap_or(255))
}

fn suite() -> Result<bool, String> {
    native::take_signals();
    let selection = Selection::parse(std::env::args().skip(1))?;
    let expectations = expect::Expectations::read(&env::repo().join("tests/expectations"))?;
    let cases = collect()?;
    let known: Vec<(&str, &str)> = cases.iter().map(|c| (c.test.as_str(), c.platform.as_str())).collect();
    let modes = ["", "+chaos", "+volume", "+volume+chaos"];
    let platforms: Vec<String> = modes.iter().flat_map(|m| ["kvm", "ptrace"].map(|p| format!("{p}{m}"))).collect();
    let platforms: Vec<&str> = platforms.iter().map(String::as_str).collect();
    let unknown = expectations.unknown(&known, &platforms);
    if !unknown.is_empty() {
        return Err(unknown.join("\nerror: "));
    }
    let all = cases.len();
    let cases: Vec<Case> = cases.into_iter().filter(|c| selection.takes(c)).collect();
    if selection.list {
        for case in &cases {
            println!("{}: test", case.id());
        }
        return Ok(true);
    }
    let cases = sample(cases, &selection);
    let left_out = all - cases.len();
    Ok(runner::run(cases, left_out, &selection, &expectations))
}

/// Compiles the programs, builds their image, and lists every case.
fn collect() -> Result<Vec<Case>, String> {
    let programs = compile::programs()?;
    let compiled = env::scratch().join("bin");
    let broken = compile::compile_all(&programs, &compiled)?;
    let root = rootfs::build(&programs, &compiled)?;
    let mut cases = Vec::new();
    let image = match rootfs::image(&root) {
        Ok(image) => image,
        Err(e) => {
            let e2 = e.clone();
            cases.push(Case::new("setup/image", "native", move || Err(e2.clone())));
            env::scratch().join("guest.img")
        }
    };
    let chaos = sandbox::has_chaos();
    if !chaos {
        let no = || Err("`nanovisor do --chaos SEED` is refused: spurious wake-ups are not tested".to_owned());
        cases.push(Case::new("setup/chaos", "native", no));
    }
    cases.extend(guest::cases(&programs, &broken, &root, &image, chaos));
    cases.extend(checkpoint::unique_cases(&image));
    cases.extend(checkpoint::volume::cases(&image));
    cases.extend(checkpoint::hostile::cases(&image));
    match env::debian() {
        Some((debian, root)) => {
            cases.extend(checkpoint::refusal_cases(&image, &debian));
            let image = debian;
            cases.extend(terminal::cases(stories::all(), &image, &root, chaos));
            cases.extend(program::cases(&image, &root, chaos)?);
        }
        None => println!("without NANOVISOR_IMAGE and NANOVISOR_ROOTFS: no programs of the Debian image, no terminals"),
    }
    Ok(cases)
}

/// Leaves out cases with spurious wake-ups at random where there are many.
fn sample(cases: Vec<Case>, selection: &Selection) -> Vec<Case> {
    let sampled = |case: &Case| case.platform.ends_with("+chaos");
    let count = cases.iter().filter(|c| sampled(c)).count();
    if env::soak() || selection.is_named() || count <= SAMPLE {
        return cases;
    }
    let seed = random::seed();
    println!(
        "{SAMPLE} of {count} cases with spurious wake-ups; NANOVISOR_SEED={seed} repeats the choice, NANOVISOR_SOAK=1 runs all"
    );
    let taken = random::Random::new(seed).sample(count, SAMPLE);
    let mut index = 0;
    let keep = |case: &Case| {
        let take = !sampled(case) || taken.binary_search(&index).is_ok();
        index += usize::from(sampled(case));
        take
    };
    let mut keep = keep;
    cases.into_iter().filter(|c| keep(c)).collect()
}
