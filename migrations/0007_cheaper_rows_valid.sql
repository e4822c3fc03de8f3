-- What 0006 has written anew was true of all rows before. Says so to Postgres.
--
-- Reads the outbox as a whole while inserts and updates go on: with 5 million rows it took 2.4 s.
alter table signaling.outbox validate constraint app_is_not_a_name_of_1_to_64_letters_digits_dots_dashes;
