// Stand-ins for the classes of Android and JUnit that the generated module calls; split into files by their package lines.
// ==== android/content/res/AssetManager.java
package android.content.res;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;

public final class AssetManager {
    private final Path folder;

    public AssetManager(Path folder) {
        this.folder = folder;
    }

    public InputStream open(String name) throws IOException {
        return Files.newInputStream(folder.resolve(name));
    }
}
// ==== android/graphics/Bitmap.java
package android.graphics;

public final class Bitmap {
    private final int width;
    private final int[] colours;

    public Bitmap(int width, int[] colours) {
        this.width = width;
        this.colours = colours;
    }

    public int getWidth() {
        return width;
    }

    public int getHeight() {
        return colours.length / width;
    }

    /** The nearest pixels, whatever the filter. */
    public static Bitmap createScaledBitmap(Bitmap from, int columns, int rows, boolean filter) {
        int[] colours = new int[rows * columns];
        for (int i = 0; i < colours.length; i++) {
            int row = i / columns * from.getHeight() / rows;
            colours[i] = from.colours[row * from.width + i % columns * from.width / columns];
        }
        return new Bitmap(columns, colours);
    }

    public void getPixels(int[] pixels, int offset, int stride, int x, int y, int columns, int rows) {
        for (int row = 0; row < rows; row++) {
            System.arraycopy(colours, (y + row) * width + x, pixels, offset + row * stride, columns);
        }
    }
}
// ==== androidx/test/platform/app/InstrumentationRegistry.java
package androidx.test.platform.app;

import android.content.res.AssetManager;
import java.nio.file.Paths;

public final class InstrumentationRegistry {
    public static final class Context {
        private final String folder;

        Context(String folder) {
            this.folder = folder;
        }

        public AssetManager getAssets() {
            return new AssetManager(Paths.get(System.getProperty("module"), "src", folder, "assets"));
        }
    }

    public static final class Instrumentation {
        public Context getContext() {
            return new Context("androidTest");
        }

        public Context getTargetContext() {
            return new Context("main");
        }
    }

    public static Instrumentation getInstrumentation() {
        return new Instrumentation();
    }
}
// ==== org/junit/Test.java
package org.junit;

import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;

@Retention(RetentionPolicy.RUNTIME)
public @interface Test {}
// ==== org/junit/Assert.java
package org.junit;

import java.util.Arrays;

public final class Assert {
    public static void assertArrayEquals(int[] expected, int[] found) {
        if (!Arrays.equals(expected, found)) {
            throw new AssertionError(Arrays.toString(expected) + " is not " + Arrays.toString(found));
        }
    }
}
