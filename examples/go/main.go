// A shop that stores an order, and sends messages to its customer and its warehouse in the same transaction.
//
// The example needs a database that `worker migrate` has prepared, and a `worker run` that serves it:
//
//	DATABASE_URL=postgres://user:password@host:5432/app go run .
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// Only this example waits for final statuses. An application need not wait.
	timeout      = 30 * time.Second
	pollInterval = 200 * time.Millisecond
	// SQLSTATE of a row that a constraint refuses.
	checkViolation = "23514"
)

const createOrders = `
	create table if not exists app_order (
		id bigint generated always as identity primary key,
		customer text not null
	)`

// With a dedupe_key, a repeated insert adds no second message, and returns no row.
const notifyCustomerSQL = `
	insert into signaling.outbox (sender, destination, payload, wait_for_ack, dedupe_key)
	values ('shop', $1, $2, true, $3)
	on conflict do nothing
	returning id`

const notifyWarehouseSQL = `
	insert into signaling.outbox (sender, channel_name, payload)
	values ('shop', 'warehouse', $1)
	returning id`

// A connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Returns the id of the message, or false if the message exists.
func notifyCustomer(ctx context.Context, db querier, orderID int64, customer string) (id int64, isNew bool, err error) {
	err = db.QueryRow(ctx, notifyCustomerSQL, customer, fmt.Sprintf("Order %d is confirmed", orderID),
		fmt.Sprintf("order-%d-confirmed", orderID)).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("the message to %s: %w", customer, err)
	}
	return id, true, nil
}

// Stores the order and its messages, or nothing.
func placeOrder(ctx context.Context, conn *pgx.Conn, customer string) (orderID int64, messages []int64, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		row := tx.QueryRow(ctx, "insert into app_order (customer) values ($1) returning id", customer)
		if err := row.Scan(&orderID); err != nil {
			return fmt.Errorf("the order: %w", err)
		}
		toCustomer, _, err := notifyCustomer(ctx, tx, orderID, customer)
		if err != nil {
			return err
		}
		var toWarehouse int64
		row = tx.QueryRow(ctx, notifyWarehouseSQL, fmt.Sprintf("Pack order %d", orderID))
		if err := row.Scan(&toWarehouse); err != nil {
			return fmt.Errorf("the message to the warehouse: %w", err)
		}
		messages = []int64{toCustomer, toWarehouse}
		return nil
	})
	return orderID, messages, err
}

// Returns the final status, or pending after the timeout.
func waitUntilFinal(ctx context.Context, db querier, messageID int64) (status string, err error) {
	begun := time.Now()
	for {
		row := db.QueryRow(ctx, "select status from signaling.delivery_status where id = $1", messageID)
		if err := row.Scan(&status); err != nil {
			return "", fmt.Errorf("the status of message %d: %w", messageID, err)
		}
		if status != "pending" || time.Since(begun) > timeout {
			return status, nil
		}
		time.Sleep(pollInterval)
	}
}

func run(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("the connection: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, createOrders); err != nil {
		return err
	}

	orderID, messages, err := placeOrder(ctx, conn, "user-17")
	if err != nil {
		return err
	}
	ids := strings.Join(strings.Fields(fmt.Sprint(messages)), ", ")
	fmt.Printf("order %d is stored, and messages %s with it\n", orderID, ids)

	again, isNew, err := notifyCustomer(ctx, conn, orderID, "user-17")
	if err != nil {
		return err
	}
	if isNew {
		fmt.Printf("the repeated insert added message %d\n", again)
	} else {
		fmt.Println("the repeated insert added no message")
	}

	_, _, err = placeOrder(ctx, conn, "user/17")
	if err == nil {
		return errors.New("the outbox accepted a message to user/17")
	}
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != checkViolation {
		return err
	}
	// The transaction stored nothing, not even the order.
	// The name of the constraint says what is wrong with the message.
	fmt.Println("refused:", refused.ConstraintName)

	for _, message := range messages {
		status, err := waitUntilFinal(ctx, conn, message)
		if err != nil {
			return err
		}
		fmt.Printf("message %d: %s\n", message, status)
		if status == "pending" {
			return fmt.Errorf("message %d: no worker has sent it within %s", message, timeout)
		}
	}
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
