<?php
// Proves that the dump is whole: mariadb-dump writes its last line only when it came to the end.

declare(strict_types=1);

const DUMP = '/var/lib/dump/wordpress.sql';

$file = fopen(DUMP, 'rb');
if ($file === false) {
    exit(1); // PHP has said why
}
fseek($file, -min(256, filesize(DUMP)), SEEK_END);
if (!preg_match('/^-- Dump completed/m', (string) stream_get_contents($file))) {
    fwrite(STDERR, 'the dump ends before its end: ' . DUMP . "\n");
    exit(1);
}
