// What the tests call of the generated module, a word for each; numbers go through standard input and output.
import android.graphics.Bitmap;
import java.io.DataInputStream;
import java.io.IOException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;
import org.junit.Test;
import qexport.android.Images;
import qexport.android.Network;

public final class Driver {
    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "check" -> check();
            case "run" -> run(arguments[1]);
            case "refuse" -> refuse(arguments[1]);
            case "pixels" -> pixels(arguments);
            case "names" -> names(arguments[1]);
            default -> throw new AssertionError(arguments[0]);
        }
    }

    /** The generated test class. */
    private static void check() throws Exception {
        Class<?> tests = Class.forName("qexport.android.SelfCheckTest");
        for (Method method : tests.getMethods()) {
            if (method.isAnnotationPresent(Test.class)) {
                method.invoke(tests.getConstructor().newInstance());
                System.out.println(method.getName() + " passed");
            }
        }
    }

    /** Samples from standard input through a file, as arrays and as direct buffers. */
    private static void run(String file) throws IOException {
        try (Network network = new Network(Files.readAllBytes(Paths.get(file)))) {
            byte[] input = new byte[Arrays.stream(network.inputShape(0)).reduce(1, (a, b) -> a * b)];
            DataInputStream in = new DataInputStream(System.in);
            ByteBuffer direct = ByteBuffer.allocateDirect(input.length);
            int[] second = new int[network.outputSize()];
            while (in.available() > 0) {
                in.readFully(input);
                int[] first = network.run(input);
                direct.clear();
                direct.put(input);
                network.run(direct, second);
                if (!Arrays.equals(first, second)) {
                    throw new AssertionError("a buffer gives something else than an array");
                }
                System.out.println(Arrays.toString(first));
            }
            System.err.println(network.instructionSet() + " " + Arrays.toString(network.outputShape(0)));
        }
    }

    private interface Call {
        void run() throws Exception;
    }

    private static void shows(Call call) throws Exception {
        try {
            call.run();
            System.out.println("nothing was thrown");
        } catch (RuntimeException error) {
            System.out.println(error.getClass().getSimpleName() + ": " + error.getMessage());
        }
    }

    private static void refuse(String file) throws Exception {
        byte[] good = Files.readAllBytes(Paths.get(file));
        byte[] damaged = good.clone();
        damaged[good.length / 2] ^= 1;
        shows(() -> new Network(damaged));
        shows(() -> new Network(Arrays.copyOf(good, 40)));
        shows(() -> new Network(new byte[0]));
        shows(() -> new Network(null));
        Network network = new Network(good);
        shows(() -> network.run(new byte[1]));
        shows(() -> network.run((byte[]) null));
        shows(() -> network.run(ByteBuffer.allocate(32), new int[network.outputSize()]));
        shows(() -> network.run(ByteBuffer.allocateDirect(31), new int[network.outputSize()]));
        shows(() -> network.run(ByteBuffer.allocateDirect(32), new int[1]));
        shows(() -> network.inputShape(7));
        network.close();
        network.close();
        shows(() -> network.run(new byte[32]));
    }

    /** Width, then channels, rows and columns; colours from standard input. */
    private static void pixels(String[] arguments) throws IOException {
        int[] numbers = Arrays.stream(arguments).skip(1).mapToInt(Integer::parseInt).toArray();
        byte[] bytes = System.in.readAllBytes();
        int[] colours = new int[bytes.length / 4];
        ByteBuffer.wrap(bytes).asIntBuffer().get(colours);
        int[] shape = Arrays.copyOfRange(numbers, 1, numbers.length);
        System.out.println(Arrays.toString(Images.pixels(new Bitmap(numbers[0], colours), shape)));
    }

    /** Constants of a generated class, and what the helpers make of numbers. */
    private static void names(String name) throws Exception {
        Class<?> type = Class.forName("qexport.android." + name);
        for (String label : (String[]) type.getField("CLASS_NAMES").get(null)) {
            System.out.println(Arrays.toString(label.codePoints().toArray()));
        }
        double[] scales = (double[]) type.getField("SCALES").get(null);
        int[][] shapes = (int[][]) type.getField("OUTPUT_SHAPES").get(null);
        int[] output = {-8, 24, 24};
        System.out.println(Arrays.toString(scales) + Arrays.deepToString(shapes) + Network.best(output)
                + Arrays.toString(Network.scores(output, scales[0])));
    }
}
