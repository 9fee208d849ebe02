<?php
// Writes the whole site in WordPress's own form for moving to another one (WXR), which its importer reads anywhere.

declare(strict_types=1);

const EXPORT = '/var/lib/export/wordpress.xml';

require __DIR__ . '/wordpress.php';
require ABSPATH . 'wp-admin/includes/export.php';

$file = fopen(EXPORT . '.new', 'wb') ?: fail('cannot write ' . EXPORT);
$written = true;
ob_start(function (string $part) use ($file, &$written): string {
    $written = $written && fwrite($file, $part) === strlen($part);
    return '';
}, 1 << 16);
export_wp();
ob_end_flush();
if (!$written || !fflush($file) || !rename(EXPORT . '.new', EXPORT)) {
    fail('cannot write all of ' . EXPORT);
}
