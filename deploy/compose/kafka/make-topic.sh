#!/bin/bash
# Makes the logins of relays, consumers and operators, the topic with the settings of docs/topic.md, and the ACLs of
# docs/kafka-security.md. It may be repeated: a new secret becomes a new password.
set -euo pipefail
umask 077
topic=${KAFKA_TOPIC:-wallet_events}
group=${CONSUMER_GROUP:-wallet-history}
at=(--bootstrap-server localhost:9094 --command-config /tmp/admin.properties)
cat > /tmp/admin.properties <<END
security.protocol=SASL_PLAINTEXT
sasl.mechanism=PLAIN
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" \
password="$(< /run/secrets/kafka_admin_password)";
END
cd /opt/kafka/bin

for login in relay consumer operator; do
    # In a file: other users of the machine see arguments.
    echo "SCRAM-SHA-512=password=$(< "/run/secrets/kafka_${login}_password")" > "/tmp/$login.properties"
    ./kafka-configs.sh "${at[@]}" --alter --entity-type users --entity-name "$login" \
        --add-config-file "/tmp/$login.properties"
done

./kafka-topics.sh "${at[@]}" --create --if-not-exists --topic "$topic" --partitions "${KAFKA_TOPIC_PARTITIONS:-12}" \
    --config cleanup.policy=delete --config retention.ms=-1 --config retention.bytes=-1 \
    --config unclean.leader.election.enable=false --config max.message.bytes=1048588 \
    --config message.timestamp.type=LogAppendTime

allow() { ./kafka-acls.sh "${at[@]}" --add --allow-principal "User:$1" "${@:2}" > /dev/null; }
allow relay --topic "$topic" --operation Write --operation DescribeConfigs
allow consumer --topic "$topic" --group "$group" --operation Read
allow operator --topic "$topic" --operation Read --operation DescribeConfigs
