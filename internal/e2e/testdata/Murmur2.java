import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.utils.Utils;

/** Prints the partition of each key on standard input, as Kafka's default partitioner picks it. */
class Murmur2 {
    public static void main(String[] arguments) throws Exception {
        int partitions = Integer.parseInt(arguments[0]);
        StringBuilder answers = new StringBuilder();
        BufferedReader keys = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String key; (key = keys.readLine()) != null; ) {
            byte[] bytes = key.getBytes(StandardCharsets.UTF_8);
            answers.append(Utils.toPositive(Utils.murmur2(bytes)) % partitions).append('\n');
        }
        System.out.print(answers);
    }
}
