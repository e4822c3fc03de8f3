//! Output that a command refreshes.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use terminal_size::{Height, Width, terminal_size};

/// On a terminal, each text replaces the previous one, in the alternate screen. A pipe gets all texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    is_terminal: bool,
}

const ENTER_ALTERNATE_SCREEN: &str = "\x1b[?1049h";
const LEAVE_ALTERNATE_SCREEN: &str = "\x1b[?1049l";
const CURSOR_HOME: &str = "\x1b[H";
const CLEAR_TO_END_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Shows a text. A terminal shows only the lines that fit.
    ///
    /// # Errors
    /// If standard output is closed or can't be written.
    pub(super) async fn show(self, text: &str) -> io::Result<()> {
        if !self.is_terminal {
            return write(format!("{text}\n")).await;
        }
        let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
        let fitted = fit(text, width.into(), height.into());
        write(format!(
            "{ENTER_ALTERNATE_SCREEN}{CURSOR_HOME}{fitted}{CLEAR_BELOW}"
        ))
        .await
    }

    /// Restores the terminal.
    pub(super) async fn leave(self) -> io::Result<()> {
        if self.is_terminal {
            write(LEAVE_ALTERNATE_SCREEN.to_owned()).await?;
        }
        Ok(())
    }
}

/// Writes in another thread, because a terminal that is stopped with Ctrl-S would block the handling of signals.
async fn write(text: String) -> io::Result<()> {
    tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    })
    .await?
}

/// Cuts a text to the size of the terminal. Each line clears the rest of the previous line in its place.
fn fit(text: &str, width: usize, height: usize) -> String {
    let mut fitted = String::new();
    for (index, line) in text.lines().take(height.saturating_sub(1)).enumerate() {
        if index > 0 {
            fitted.push_str("\r\n");
        }
        let line: String = line.chars().take(width).collect();
        write!(fitted, "{line}{CLEAR_TO_END_OF_LINE}").ok();
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_size_of_the_terminal() {
        let clear = CLEAR_TO_END_OF_LINE;
        assert_eq!(
            fit("äöü!\nsecond\nthird\n", 3, 3),
            format!("äöü{clear}\r\nsec{clear}")
        );
        assert_eq!(fit("short", 80, 24), format!("short{clear}"));
    }
}
