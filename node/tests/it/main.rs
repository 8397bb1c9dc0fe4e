//! Tests of the program as a whole: real processes, real files. One target, because linking it
//! takes longer than running it.

#[cfg(test)]
mod attested_consumers;
#[cfg(test)]
mod books;
#[cfg(test)]
mod broken_streams;
#[cfg(test)]
mod chat;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod confidential;
#[cfg(test)]
mod data_folder;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod ledgers;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod models;
#[cfg(test)]
mod money;
#[cfg(test)]
mod money_reports;
#[cfg(test)]
mod network;
#[cfg(test)]
mod process;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod receipt;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod store_crash;
#[cfg(test)]
mod tee;
#[cfg(test)]
mod wallet;
#[cfg(test)]
mod watchtower;
