from kafka.future import Future

class KafkaConnection:
    init_future: Future
