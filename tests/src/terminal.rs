//! Programs at a terminal: what is typed and what must be shown, natively first and then in a sandbox on each platform.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::pty::Session;
use crate::runner::Case;
use crate::sandbox::Sandbox;
use crate::{env, native};

/// The prompt that [`SHELL`] shows.
pub const PROMPT: &str = "@> ";
/// An interactive shell with job control and nothing of the user's.
pub const SHELL: &[&str] = &["/bin/bash", "--norc", "--noprofile", "-i"];

/// One story: a command, what happens at its terminal, and the status it ends with.
pub struct Story {
    /// Its name in the list of tests.
    pub name: &'static str,
    /// The command.
    pub command: &'static [&'static str],
    /// Types and looks.
    pub play: fn(&mut Session) -> Result<(), String>,
    /// The exit status.
    pub status: i32,
}

impl Story {
    fn run(&self, command: &std::process::Command) -> Result<(), String> {
        let mut session = Session::start(command, Duration::from_secs(100))?;
        (self.play)(&mut session)?;
        let output = session.finish()?;
        output.expect_status(self.status).map(|_| ())
    }
}

/// Makes a fresh shell's prompt known.
///
/// # Errors
/// The shell does not answer.
pub fn settle(s: &mut Session) -> Result<(), String> {
    // In two parts, so that the echo of what is typed is no prompt. No colours, no bracketed paste, one width.
    s.line("bind 'set enable-bracketed-paste off'; PS1='@''> '")?;
    s.expect(PROMPT).map(|_| ())
}

/// Types a line at the prompt and answers what it printed, once the prompt is back.
///
/// # Errors
/// The prompt does not come back.
pub fn ask(s: &mut Session, line: &str) -> Result<String, String> {
    s.line(line)?;
    s.expect("\n")?;
    let text = s.expect(PROMPT)?;
    Ok(text.replace('\r', "").trim_end().to_owned())
}

/// Checks that a line prints `wanted`.
///
/// # Errors
/// It prints something else.
pub fn ask_for(s: &mut Session, line: &str, wanted: &str) -> Result<(), String> {
    let got = ask(s, line)?;
    if got == wanted { Ok(()) } else { Err(format!("`{line}` printed {got:?}, not {wanted:?}")) }
}

/// Cases of every story.
#[must_use]
pub fn cases(stories: Vec<Story>, image: &Path, root: &Path, chaos: bool) -> Vec<Case> {
    stories.into_iter().flat_map(|story| of_story(&Arc::new(story), image, root, chaos)).collect()
}

fn of_story(story: &Arc<Story>, image: &Path, root: &Path, chaos: bool) -> Vec<Case> {
    let test = format!("terminal/{}", story.name);
    let (told, root): (Arc<Story>, PathBuf) = (story.clone(), root.to_owned());
    let mut cases = vec![Case::new(&test, "native", move || told.run(&native::command(&root, told.command)?))];
    let mut platforms = env::platforms();
    if chaos {
        platforms.extend(env::platforms().iter().map(|p| format!("{p}+chaos")));
    }
    for platform in platforms {
        let (told, image, on) = (story.clone(), image.to_owned(), platform.clone());
        let run = move || told.run(&Sandbox::new(&image, &on).command(told.command)?);
        cases.push(Case::new(&test, platform, run));
    }
    cases
}
