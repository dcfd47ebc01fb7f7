from support.pipelines import (
    apart,
    fresh,
    move_money_,
    new_wallets,
    ran,
    run_consumer,
    run_consumer_for,
    run_relay,
    settings,
    tamper,
)

__all__ = [
    "apart",
    "fresh",
    "move_money_",
    "new_wallets",
    "ran",
    "run_consumer",
    "run_consumer_for",
    "run_relay",
    "settings",
    "tamper",
]
