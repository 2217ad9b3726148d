//! From a recorded workload to samples: plans, the open-loop driver, and the experiment around them.
//!
//! A study replays one trace against several arms. [`arms`] says what is compared, [`layout`] which CPUs each side
//! gets, [`experiment`] runs blocks of all arms in random order, [`process`] holds a server and a driver for each run,
//! and [`gates`] decide which runs may enter a table. [`host`] and [`doctor`] say what the host can measure at all.
//! [`plan`], [`packet`] and [`drive`] are the driver: what to send and when, as bytes, on time.

pub mod arms;
pub mod canary;
pub mod doctor;
pub mod drive;
pub mod experiment;
pub mod gates;
pub mod host;
pub mod layout;
pub mod packet;
pub mod plan;
pub mod process;
