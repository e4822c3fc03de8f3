//! Applications that insert messages: with the library, and the examples in other languages.

mod dedupe;
mod examples;
mod installed;
mod library;
