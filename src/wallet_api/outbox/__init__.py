"""The outbox: new events, and the notification of relays."""
