// A server that speaks MongoDB's protocol and keeps its documents in memory: for the tests of the store for MongoDB.
// As MongoDB's, its updates of one document are atomic.
//
//     java -cp 'build/mongodb/*' tests/mongodb/Server.java HOST PORT
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import io.netty.channel.Channel;

public class Server {
    static class Backend extends MemoryBackend {
        // It reports version 4.0, and pymongo requires 4.4. The commands of the store exist in both.
        @Override
        public Document handleCommand(Channel channel, String database, String command, Document query) {
            boolean hello = command.equals("hello");
            Document answer = super.handleCommand(channel, database, hello ? "isMaster" : command, query);
            if (hello || command.equalsIgnoreCase("isMaster")) {
                answer.put("maxWireVersion", 9);
            }
            return answer;
        }
    }

    public static void main(String[] arguments) throws Exception {
        new MongoServer(new Backend()).bind(arguments[0], Integer.parseInt(arguments[1]));
        Thread.currentThread().join();
    }
}
