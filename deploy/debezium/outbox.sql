-- What Debezium needs in the database besides the tables. Once, as their owner:
--   psql --single-transaction -v ON_ERROR_STOP=1 -f outbox.sql
-- To undo it: DROP PUBLICATION outbox; DROP PROCEDURE outbox_delete_published;
--   DROP FUNCTION outbox_cloudevent CASCADE;
--   ALTER TABLE outbox_message DROP ce_specversion, DROP ce_sequence, DROP ce_time;

-- The headers that Debezium cannot make of the other columns, as the relay writes them. They are
-- filled in by a trigger: pgoutput does not send generated columns.
ALTER TABLE outbox_message
    ADD COLUMN ce_specversion text NOT NULL DEFAULT '1.0',
    ADD COLUMN ce_sequence text,
    ADD COLUMN ce_time text;

CREATE FUNCTION outbox_cloudevent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.ce_sequence := lpad(NEW.id::text, 20, '0');
    NEW.ce_time := (to_jsonb(NEW.created_at AT TIME ZONE 'UTC') #>> '{}') || '+00:00';
    RETURN NEW;
END
$$;
CREATE TRIGGER outbox_cloudevent BEFORE INSERT OR UPDATE ON outbox_message
    FOR EACH ROW EXECUTE FUNCTION outbox_cloudevent();
UPDATE outbox_message SET ce_sequence = NULL; -- so that the trigger fills in what is there

-- Inserts only: deletes tell Debezium nothing.
CREATE PUBLICATION outbox FOR TABLE outbox_message
    WITH (publish = 'insert', publish_via_partition_root = true);

-- Deletes what Kafka has. Every minute, outside of a transaction: CALL outbox_delete_published('outbox')
--
-- Kafka has what was committed before the place in the log that Debezium has confirmed. The order is
-- what keeps messages: the slot is there; then rows are seen; then a place in the log is made, and its
-- confirmation awaited. Made before, it would say nothing of rows that commit in between. Of a slot
-- made later, it would be confirmed from the start, while Debezium still reads the rows themselves.
CREATE PROCEDURE outbox_delete_published(slot name, patience interval DEFAULT '1 minute')
LANGUAGE plpgsql AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + patience;
    seen bigint[];
    place pg_lsn;
    confirmed pg_lsn;
BEGIN
    SELECT confirmed_flush_lsn INTO STRICT confirmed
        FROM pg_replication_slots WHERE slot_name = slot;
    seen := ARRAY(SELECT id FROM outbox_message ORDER BY id LIMIT 100000);
    place := pg_logical_emit_message(false, 'heartbeat', '');
    LOOP
        COMMIT; -- no snapshot is held meanwhile
        SELECT confirmed_flush_lsn INTO STRICT confirmed
            FROM pg_replication_slots WHERE slot_name = slot;
        EXIT WHEN confirmed >= place;
        IF clock_timestamp() > give_up THEN
            RAISE WARNING 'nothing is deleted: slot % has confirmed %, not %', slot, confirmed, place;
            RETURN;
        END IF;
        PERFORM pg_sleep(0.5);
    END LOOP;
    DELETE FROM outbox_message WHERE id = ANY (seen);
END
$$;
