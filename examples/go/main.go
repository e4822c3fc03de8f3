// A shop that tells its customer and its warehouse of an order, in the transaction that stores the order.
//
// Run it, against a database that `worker migrate` has prepared and a `worker run` serves:
//
//	go mod tidy
//	DATABASE_URL=postgres://user:password@host:5432/app go run .
//
// No test runs this example.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// How long the example waits for a message to be final. An application need not wait.
	patience     = 30 * time.Second
	pollInterval = 200 * time.Millisecond
	// SQLSTATE of a constraint that says no.
	checkViolation = "23514"
)

const createOrders = `
	create table if not exists app_order (
		id bigint generated always as identity primary key,
		customer text not null
	)`

// With a dedupe_key, a repeated insert is no second message: it returns no row.
const notifyCustomerSQL = `
	insert into signaling.outbox (sender, destination, payload, wait_for_ack, dedupe_key, traceparent)
	values ('shop', $1, $2, true, $3, $4)
	on conflict do nothing
	returning id`

const notifyWarehouseSQL = `
	insert into signaling.outbox (sender, channel_name, payload)
	values ('shop', 'warehouse', $1)
	returning id`

// What a connection and a transaction have in common.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// An application that is traced passes on the context of its present span.
func traceparent() (string, error) {
	var ids [24]byte
	if _, err := rand.Read(ids[:]); err != nil {
		return "", err
	}
	return fmt.Sprintf("00-%x-%x-01", ids[:16], ids[16:]), nil
}

// Returns the id of the message, and false where it was inserted before.
func notifyCustomer(ctx context.Context, db querier, orderID int64, customer string) (id int64, isNew bool, err error) {
	trace, err := traceparent()
	if err != nil {
		return 0, false, err
	}
	err = db.QueryRow(ctx, notifyCustomerSQL, customer, fmt.Sprintf("Order %d is confirmed", orderID),
		fmt.Sprintf("order-%d-confirmed", orderID), trace).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return id, err == nil, err
}

// The order and its messages, all of them or nothing.
func placeOrder(ctx context.Context, conn *pgx.Conn, customer string) (orderID int64, messages []int64, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		row := tx.QueryRow(ctx, "insert into app_order (customer) values ($1) returning id", customer)
		if err := row.Scan(&orderID); err != nil {
			return err
		}
		toCustomer, _, err := notifyCustomer(ctx, tx, orderID, customer)
		if err != nil {
			return err
		}
		var toWarehouse int64
		row = tx.QueryRow(ctx, notifyWarehouseSQL, fmt.Sprintf("Pack order %d", orderID))
		if err := row.Scan(&toWarehouse); err != nil {
			return err
		}
		messages = []int64{toCustomer, toWarehouse}
		return nil
	})
	return orderID, messages, err
}

// Returns the final status, or pending where that takes too long.
func waitUntilFinal(ctx context.Context, db querier, messageID int64) (status string, err error) {
	begun := time.Now()
	for {
		row := db.QueryRow(ctx, "select status from signaling.delivery_status where id = $1", messageID)
		if err := row.Scan(&status); err != nil {
			return "", err
		}
		if status != "pending" || time.Since(begun) > patience {
			return status, nil
		}
		time.Sleep(pollInterval)
	}
}

func run(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, createOrders); err != nil {
		return err
	}

	orderID, messages, err := placeOrder(ctx, conn, "user-17")
	if err != nil {
		return err
	}
	fmt.Printf("order %d is stored, and messages %v with it\n", orderID, messages)

	again, isNew, err := notifyCustomer(ctx, conn, orderID, "user-17")
	if err != nil {
		return err
	}
	if isNew {
		fmt.Printf("a repeat is message %d\n", again)
	} else {
		fmt.Println("a repeat is no second message")
	}

	_, _, err = placeOrder(ctx, conn, "user/17")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != checkViolation {
		return fmt.Errorf("the table should have refused the message: %w", err)
	}
	// Nothing is stored, the order neither. The constraint's name says what is wrong.
	fmt.Println("refused:", refused.ConstraintName)

	for _, message := range messages {
		status, err := waitUntilFinal(ctx, conn, message)
		if err != nil {
			return err
		}
		fmt.Printf("message %d: %s\n", message, status)
		if status == "pending" {
			return fmt.Errorf("message %d: no worker has sent it within %s", message, patience)
		}
	}
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
