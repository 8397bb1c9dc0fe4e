//! Tests of the program as a whole: real processes, real files. One target, because linking it
//! takes longer than running it.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod data_folder;
#[cfg(test)]
mod process;
#[cfg(test)]
mod store_crash;
