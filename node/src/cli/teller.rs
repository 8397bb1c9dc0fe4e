//! Asking about coins: the running node if there is one, otherwise the data folder and the ledger.
//!
//! Owns: the choice between the two. Must not: lay anything out.

use std::sync::Arc;

use super::{Context, Failure, unexpected, wallet};
use crate::control::{Answer, Client, ControlError, MoneyAnswer, MoneyRequest, Request};
use crate::purse::Purse;
use crate::run::Foundation;
use crate::shutdown::Tasks;
use crate::teller::Teller;

/// Asks the running node, or does what it would do.
pub(super) fn ask(context: &Context, request: MoneyRequest) -> Result<MoneyAnswer, Failure> {
    if let Some(folder) = context.existing_folder()? {
        match Client::connect(&folder.control_socket()) {
            Ok(node) => {
                let Answer::Money(answer) = node.ask(Request::Money(request))? else {
                    return Err(unexpected());
                };
                return Ok(answer);
            }
            Err(ControlError::NotRunning) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let config = context.load_unchecked()?;
    let foundation = Foundation::open(&config)?;
    let words = wallet::kept(&foundation, config.network)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let tasks = Tasks::default();
        let purse = Purse::from_phrase(&words, config.network).map_err(Failure::new)?;
        let ledger = crate::start::ledger::open(&config, &foundation.folder, &tasks).await;
        let ledger = ledger.map_err(Failure::new)?;
        let teller = Teller::new(&config, &foundation, ledger, Arc::new(purse));
        let answer = Box::pin(teller.answer(request)).await;
        tasks.stopping().cancel();
        answer.map_err(|refusal| Failure::from(ControlError::Refused(refusal)))
    });
    runtime.shutdown_background();
    answer
}
