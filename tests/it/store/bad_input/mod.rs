//! What a store is given that it cannot use: each is a typed error that says what to do, and nothing is lost.

mod disk;
mod paths;
mod state;
mod values;
