//! Databases whose tables were emptied, and databases that were restored or copied.

mod copied;
mod emptied;
mod restored;
