import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.List;
import java.util.OptionalLong;
import org.postgresql.util.PSQLException;

/**
 * A shop that stores an order, and sends messages to its customer and its warehouse in the same transaction.
 *
 * <p>The example needs a database that {@code worker migrate} has prepared, and a {@code worker run} that serves it:
 *
 * <pre>
 * JDBC_URL='jdbc:postgresql://host:5432/app?user=user&amp;password=password' mvn --quiet compile exec:java
 * </pre>
 */
public final class Producer {
    /** Only this example waits for final statuses. An application need not wait. */
    private static final Duration TIMEOUT = Duration.ofSeconds(30);

    private static final Duration POLL_INTERVAL = Duration.ofMillis(200);

    /** SQLSTATE of a row that a constraint refuses. */
    private static final String CHECK_VIOLATION = "23514";

    private static final String CREATE_ORDERS =
            """
            create table if not exists app_order (
                id bigint generated always as identity primary key,
                customer text not null
            )""";

    /** With a dedupe_key, a repeated insert adds no second message, and returns no row. */
    private static final String NOTIFY_CUSTOMER =
            """
            insert into signaling.outbox (sender, destination, payload, wait_for_ack, dedupe_key)
            values ('shop', ?, ?, true, ?)
            on conflict do nothing
            returning id""";

    private static final String NOTIFY_WAREHOUSE =
            """
            insert into signaling.outbox (sender, channel_name, payload)
            values ('shop', 'warehouse', ?)
            returning id""";

    /** An order, and the ids of its messages. */
    private record Order(long id, List<Long> messages) {}

    private final Connection connection;

    private Producer(Connection connection) {
        this.connection = connection;
    }

    /** Runs a statement that returns an id, or nothing. */
    private OptionalLong insert(String sql, String... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int index = 0; index < values.length; index++) {
                statement.setString(index + 1, values[index]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? OptionalLong.of(rows.getLong(1)) : OptionalLong.empty();
            }
        }
    }

    /** Returns the id of the message, or nothing if the message exists. */
    private OptionalLong notifyCustomer(long orderId, String customer) throws SQLException {
        return insert(
                NOTIFY_CUSTOMER,
                customer,
                "Order " + orderId + " is confirmed",
                "order-" + orderId + "-confirmed");
    }

    /** Stores the order and its messages, or nothing. */
    private Order placeOrder(String customer) throws SQLException {
        connection.setAutoCommit(false);
        try {
            long orderId =
                    insert("insert into app_order (customer) values (?) returning id", customer).orElseThrow();
            long toCustomer = notifyCustomer(orderId, customer).orElseThrow();
            long toWarehouse = insert(NOTIFY_WAREHOUSE, "Pack order " + orderId).orElseThrow();
            connection.commit();
            return new Order(orderId, List.of(toCustomer, toWarehouse));
        } catch (SQLException | RuntimeException error) {
            connection.rollback();
            throw error;
        } finally {
            connection.setAutoCommit(true);
        }
    }

    private String status(long messageId) throws SQLException {
        try (PreparedStatement statement =
                connection.prepareStatement("select status from signaling.delivery_status where id = ?")) {
            statement.setLong(1, messageId);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getString(1);
            }
        }
    }

    /** Returns the final status, or {@code pending} after the timeout. */
    private String waitUntilFinal(long messageId) throws SQLException, InterruptedException {
        long begun = System.nanoTime();
        while (true) {
            String status = status(messageId);
            if (!status.equals("pending") || System.nanoTime() - begun > TIMEOUT.toNanos()) {
                return status;
            }
            Thread.sleep(POLL_INTERVAL.toMillis());
        }
    }

    private void run() throws SQLException, InterruptedException {
        try (var statement = connection.createStatement()) {
            statement.execute(CREATE_ORDERS);
        }

        Order order = placeOrder("user-17");
        System.out.printf("order %d is stored, and messages %s with it%n", order.id(), order.messages());

        OptionalLong again = notifyCustomer(order.id(), "user-17");
        String added = again.isPresent() ? "message " + again.getAsLong() : "no message";
        System.out.println("the repeated insert added " + added);

        try {
            placeOrder("user/17");
        } catch (PSQLException error) {
            if (!CHECK_VIOLATION.equals(error.getSQLState())) {
                throw error;
            }
            // The transaction stored nothing, not even the order.
            // The name of the constraint says what is wrong with the message.
            System.out.println("refused: " + error.getServerErrorMessage().getConstraint());
        }

        for (long message : order.messages()) {
            String status = waitUntilFinal(message);
            System.out.printf("message %d: %s%n", message, status);
            if (status.equals("pending")) {
                throw new IllegalStateException("no worker has sent message " + message + " within " + TIMEOUT);
            }
        }
    }

    public static void main(String[] arguments) throws SQLException, InterruptedException {
        try (Connection connection = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            new Producer(connection).run();
        }
    }
}
