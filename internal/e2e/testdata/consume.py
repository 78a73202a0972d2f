"""Reads a topic to its end as any Python consumer would, and prints one JSON
line for each event: librdkafka, read_committed, Confluent's AvroDeserializer.
Without a registry the values are text, and are printed as they are."""

import json
import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

broker, registry, topic = sys.argv[1:]
if registry:
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer({
    "bootstrap.servers": broker,
    "group.id": "e2e",
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
})
partitions = [TopicPartition(topic, p, 0) for p in consumer.list_topics(topic, 30).topics[topic].partitions]
consumer.assign(partitions)
context = SerializationContext(topic, MessageField.VALUE)
at_end = set()
while len(at_end) < len(partitions):
    for message in consumer.consume(1000, 1):
        if message.error():
            if message.error().code() != KafkaError._PARTITION_EOF:
                sys.exit(str(message.error()))
            at_end.add(message.partition())
            continue
        if not registry:
            print(json.dumps({"Key": message.key().decode(), "Value": message.value().decode()}))
            continue
        event = deserialize(message.value(), context)
        print(json.dumps({
            "ReportID": event["reportId"],
            "Key": message.key().decode(),
            "CorrelationID": event["correlationId"] or "",
            "InteractionID": event["interactionId"] or "",
        }))
consumer.close()
