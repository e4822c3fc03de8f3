//! A terminal on which something is shown that changes.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use terminal_size::{Height, Width, terminal_size};

/// Standard output: a terminal shows each text in the place of the one before, in a screen of its own; anything else
/// gets one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    is_terminal: bool,
}

/// The terminal's other screen, as xterm and all that are like it know it.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
/// To the top left corner.
const HOME: &str = "\x1b[H";
const CLEAR_TO_END_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Shows a text; of what a terminal has no room for, the beginning.
    ///
    /// # Errors
    /// Where nobody takes the output any more.
    pub(super) async fn show(self, text: &str) -> io::Result<()> {
        if !self.is_terminal {
            return write(format!("{text}\n")).await;
        }
        let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
        let fitted = fit(text, width.into(), height.into());
        write(format!("{ENTER}{HOME}{fitted}{CLEAR_BELOW}")).await
    }

    /// Gives the terminal back as it was.
    ///
    /// # Errors
    /// Where nobody takes the output any more.
    pub(super) async fn leave(self) -> io::Result<()> {
        if self.is_terminal {
            write(LEAVE.to_owned()).await?;
        }
        Ok(())
    }
}

/// Writes in a thread of its own: a terminal that is stopped with Ctrl-S must not keep the signals waiting.
async fn write(text: String) -> io::Result<()> {
    tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    })
    .await?
}

/// The part of a text for which there is room. Each line clears what stood there.
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
    fn what_there_is_no_room_for_is_cut() {
        let clear = CLEAR_TO_END_OF_LINE;
        assert_eq!(
            fit("äöü!\nsecond\nthird\n", 3, 3),
            format!("äöü{clear}\r\nsec{clear}")
        );
        assert_eq!(fit("short", 80, 24), format!("short{clear}"));
    }
}
