//! `worker dev`: everything that a delivery needs, thrown away afterwards.

pub mod postgres;
