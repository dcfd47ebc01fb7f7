"""The events of the outbox, which are the contract with consumers.

They are CloudEvents 1.0 in Kafka's binary mode: attributes are `ce_*` headers, and the value is the JSON of a model.
"""
