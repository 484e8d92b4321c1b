//! Campaigns: many cases, drawn or enumerated, against a model or a rule.

mod arguments;
mod bank;
mod corruption;
mod faults;
mod isolation;
mod linear;
mod linearizable;
mod model;
mod open_reads;
mod refused;
mod sync_faults;
mod user_code;
